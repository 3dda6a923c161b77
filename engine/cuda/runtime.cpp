// The CUDA half's one entry: hands base's device interface to liblehr.so when both are of one
// build.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include <exception>
#include <string>

#include "engine/base/device.h"
#include "engine/base/stamp.h"
#include "engine/cuda/copy_stream.h"
#include "engine/cuda/graph.h"
#include "engine/cuda/inventory.h"
#include "engine/cuda/nccl.h"

namespace lehr::cuda {
namespace {

class Runtime : public DeviceRuntime {
 public:
  std::vector<DeviceInfo> devices() override { return cuda::devices(); }
  std::string versions() override { return cuda::versions(); }
  at::Tensor pin(const at::Tensor& host) override { return cuda::pin(host); }
  at::Tensor copy_in(const at::Tensor& host) override { return cuda::copy_in(host); }
  void synchronize() override {
    if (c10::cuda::device_count() > 0) c10::cuda::device_synchronize();
  }
  std::unique_ptr<RecordedWork> record(const std::function<void(bool)>& work) override {
    return cuda::record(work);
  }
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
