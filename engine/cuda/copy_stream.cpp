// The copy is allocated on the copy stream, not on the current one: there it would have to wait for
// work that still uses the block's last life. record_stream then keeps the allocator from reusing
// it before the current stream is done with it.
#include "engine/cuda/copy_stream.h"

#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>

namespace lehr::cuda {
namespace {

// one per device for the life of the process
c10::cuda::CUDAStream copy_stream() {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::cuda::CUDAStream> streams;
  std::lock_guard lock(mutex);
  const auto device = c10::cuda::current_device();
  auto found = streams.find(device);
  if (found == streams.end())
    found = streams.emplace(device, c10::cuda::getStreamFromPool(/*isHighPriority=*/true)).first;
  return found->second;
}

}  // namespace

at::Tensor pin(const at::Tensor& host) { return host.is_pinned() ? host : host.pin_memory(); }

at::Tensor copy_in(const at::Tensor& host) {
  const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream();
  const c10::cuda::CUDAStream copying = copy_stream();
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

}  // namespace lehr::cuda
