#include "engine/cuda/timer.h"

#include <c10/cuda/CUDAEvent.h>

#include <array>

namespace lehr::cuda {
namespace {

class Timer : public DeviceTimer {
 public:
  void begin() override { pairs_[ended_ % 2].begun.record(); }
  void end() override { pairs_[ended_++ % 2].ended.record(); }
  double seconds() override {
    if (ended_ < 2) return 0;
    const Pair& before = pairs_[ended_ % 2];
    before.ended.synchronize();
    return before.begun.elapsed_time(before.ended) / 1e3;
  }

 private:
  struct Pair {
    c10::cuda::CUDAEvent begun{cudaEventDefault}, ended{cudaEventDefault};  // which take the time
  };
  std::array<Pair, 2> pairs_;
  size_t ended_ = 0;
};

}  // namespace

std::unique_ptr<DeviceTimer> timer() { return std::make_unique<Timer>(); }

}  // namespace lehr::cuda
