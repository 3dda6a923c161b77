// kernels::parallel_for: the threads that at::parallel_for has only where it is compiled with
// OpenMP.
#include "kernels/common/parallel.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace lehr::kernels {
namespace {

TEST(KernelsParallel, CoversTheRangeOnceOnAsManyThreadsAsThereAre) {
  const int before = at::get_num_threads();
  for (int threads : {1, 2}) {
    at::set_num_threads(threads);
    std::mutex mutex;
    std::condition_variable came;
    std::set<std::thread::id> ids;
    std::vector<int> covered(1000);
    parallel_for(0, 1000, 10, [&](int64_t begin, int64_t end) {
      std::unique_lock<std::mutex> lock(mutex);
      ids.insert(std::this_thread::get_id());
      came.notify_all();
      // nobody takes two parts before all are here, however late
      came.wait_for(lock, std::chrono::minutes(1),
                    [&] { return ids.size() == static_cast<size_t>(threads); });
      for (int64_t i = begin; i < end; ++i) ++covered[i];
    });
    EXPECT_EQ(ids.size(), static_cast<size_t>(threads));
    EXPECT_EQ(covered, std::vector<int>(1000, 1));
  }
  at::set_num_threads(before);
}

TEST(KernelsParallel, HandsAnExceptionToItsCaller) {
  EXPECT_THROW(parallel_for(0, 1000, 10, [](int64_t, int64_t) { throw std::runtime_error("no"); }),
               std::runtime_error);
}

}  // namespace
}  // namespace lehr::kernels
