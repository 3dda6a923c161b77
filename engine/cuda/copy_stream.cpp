// The copy is allocated on the copy stream, not on the current one: there it would have to wait for
// work that still uses the block's last life. record_stream then keeps the allocator from reusing
// it before the current stream is done with it.
#include "engine/cuda/copy_stream.h"

#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <map>
#include <mutex>
#include <utility>

#include "engine/base/log.h"

namespace lehr::cuda {
namespace {

enum class Way { kIn, kOut };

// one per device and way for the life of the process
c10::cuda::CUDAStream copy_stream(Way way) {
  static std::mutex mutex;
  static std::map<std::pair<c10::DeviceIndex, Way>, c10::cuda::CUDAStream> streams;
  std::lock_guard lock(mutex);
  const std::pair key{c10::cuda::current_device(), way};
  auto found = streams.find(key);
  if (found == streams.end())
    found = streams.emplace(key, c10::cuda::getStreamFromPool(/*isHighPriority=*/true)).first;
  return found->second;
}

class Copies : public CopyOut {
 public:
  Copies(const std::vector<at::Tensor>& from, const std::vector<void*>& to) {
    const c10::NoGradGuard no_grad;
    for (const auto& tensor : from) held_.push_back(tensor.detach().contiguous());
    const c10::cuda::CUDAStream copying = copy_stream(Way::kOut);
    c10::cuda::CUDAEvent ready;
    ready.record();
    ready.block(copying);
    for (size_t i = 0; i < to.size(); ++i) {
      if (held_[i].nbytes() == 0) continue;
      C10_CUDA_CHECK(cudaMemcpyAsync(to[i], held_[i].const_data_ptr(), held_[i].nbytes(),
                                     cudaMemcpyDeviceToHost, copying));
      held_[i].record_stream(copying.unwrap());
    }
    done_.record(copying);
  }
  void block() override { done_.block(c10::cuda::getCurrentCUDAStream()); }
  void wait() override { done_.synchronize(); }

 private:
  std::vector<at::Tensor> held_;
  c10::cuda::CUDAEvent done_;
};

}  // namespace

at::Tensor pin(const at::Tensor& host) { return host.is_pinned() ? host : host.pin_memory(); }

at::Tensor copy_in(const at::Tensor& host) {
  const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream();
  const c10::cuda::CUDAStream copying = copy_stream(Way::kIn);
  at::Tensor device;
  {
    const c10::cuda::CUDAStreamGuard guard(copying);
    device = at::empty_like(host, host.options().device(copying.device()).pinned_memory(false));
    device.copy_(host, /*non_blocking=*/true);
  }
  c10::cuda::CUDAEvent copied;
  copied.record(copying);
  copied.block(current);
  device.record_stream(current.unwrap());
  return device;
}

std::unique_ptr<CopyOut> copy_out(const std::vector<at::Tensor>& from,
                                  const std::vector<void*>& to) {
  return std::make_unique<Copies>(from, to);
}

void lock_pages(void* memory, size_t bytes) {
  const cudaError_t error = cudaHostRegister(memory, bytes, cudaHostRegisterDefault);
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  log_warning(fmt::format("{} MB for checkpoints cannot be page-locked ({}), so copies are slow",
                          bytes >> 20, cudaGetErrorString(error)));
}

void unlock_pages(void* memory) {
  (void)cudaHostUnregister(memory);  // of what could not be locked it says so
  (void)cudaGetLastError();
}

}  // namespace lehr::cuda
