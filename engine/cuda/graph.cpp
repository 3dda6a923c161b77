#include "engine/cuda/graph.h"

#include <ATen/autocast_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

namespace lehr::cuda {
namespace {

// what libraries allocate or choose at their first calls must not happen while recording
constexpr int kWarmUps = 3;

class Graph : public RecordedWork {
 public:
  explicit Graph(const std::function<void(bool)>& work) {
    c10::cuda::device_synchronize();
    // recording needs a stream other than the default one, and warming up the same
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
    // a weight that autocast has cached outside would be read stale by every replay
    struct NoCache {
      bool before = at::autocast::is_autocast_cache_enabled();
      NoCache() { at::autocast::set_autocast_cache_enabled(false); }
      ~NoCache() { at::autocast::set_autocast_cache_enabled(before); }
    } no_cache;
    for (int i = 0; i < kWarmUps; ++i) work(false);
    c10::cuda::device_synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    // of this thread and those of autograd that work for it: a loader's thread may go on copying
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work(true);
    } catch (...) {
      try {
        graph_.capture_end();
      } catch (const std::exception&) {  // the first error is the one to tell
      }
      throw;
    }
    graph_.capture_end();
    c10::cuda::device_synchronize();
  }
  void replay() override { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<RecordedWork> record(const std::function<void(bool)>& work) {
  return std::make_unique<Graph>(work);
}

}  // namespace lehr::cuda
