// The CUDA half's one entry: hands base's device interface to liblehr.so when both are of one
// build.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include <cstdlib>
#include <exception>
#include <string>

#include "engine/base/device.h"
#include "engine/base/stamp.h"
#include "engine/cuda/copy_stream.h"
#include "engine/cuda/graph.h"
#include "engine/cuda/inventory.h"
#include "engine/cuda/nccl.h"
#include "engine/cuda/timer.h"

namespace lehr::cuda {
namespace {

class Runtime : public DeviceRuntime {
 public:
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  std::vector<DeviceInfo> devices() override { return cuda::devices(); }
  std::string versions() override { return cuda::versions(); }
  at::Tensor pin(const at::Tensor& host) override { return cuda::pin(host); }
  at::Tensor copy_in(const at::Tensor& host) override { return cuda::copy_in(host); }
  std::unique_ptr<CopyOut> copy_out(const std::vector<at::Tensor>& from,
                                    const std::vector<void*>& to) override {
    return cuda::copy_out(from, to);
  }
  void lock_pages(void* memory, size_t bytes) override { cuda::lock_pages(memory, bytes); }
  void unlock_pages(void* memory) override { cuda::unlock_pages(memory); }
  void synchronize() override {
    if (c10::cuda::device_count() > 0) c10::cuda::device_synchronize();
  }
  std::unique_ptr<RecordedWork> record(const std::function<void(bool)>& work) override {
    return cuda::record(work);
  }
  // NCCL refuses ranks that share a GPU, which a test may want
  bool has_collectives() const override { return !std::getenv("LEHR_TEST_RANKS_SHARE_GPU"); }
  std::unique_ptr<DeviceTimer> timer() override { return cuda::timer(); }
  c10d::Backend* make_nccl(c10d::Store& store, int rank, int size, double timeout_s) override {
    return cuda::make_nccl(store, rank, size, timeout_s);
  }
  int64_t peak_bytes() override {
    if (c10::cuda::device_count() == 0) return 0;
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
    return stats.allocated_bytes[0].peak;  // [0]: all pools together
  }
};

}  // namespace
}  // namespace lehr::cuda

// The runtime, which lives as long as the process; or nullptr and why, in text that lives as long.
extern "C" lehr::DeviceRuntime* lehr_cuda_runtime(const char* build_stamp, const char** problem) {
  static std::string text;
  if (std::string(build_stamp) != lehr::kBuildStamp) {
    text = std::string("is of another build: ") + lehr::kBuildStamp;
    *problem = text.c_str();
    return nullptr;
  }
  static lehr::cuda::Runtime runtime;
  return &runtime;
}
