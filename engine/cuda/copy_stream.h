// Batches on their way to the device, and checkpoints on theirs from it, beside the computation
// instead of in front of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "engine/base/device.h"

namespace lehr::cuda {

// A page-locked copy from LibTorch's cache of pinned memory (the same tensor when it is pinned).
at::Tensor pin(const at::Tensor& host);

// Copies pinned `host` to the current device on a stream of its own and makes the current stream
// wait for it; the CPU waits for nothing. Strides are kept. The caller may drop `host` at once: the
// cache of pinned memory waits for the copy before it hands the block out again.
at::Tensor copy_in(const at::Tensor& host);

// See DeviceRuntime. On another stream than copy_in: a link carries both ways at once.
std::unique_ptr<CopyOut> copy_out(const std::vector<at::Tensor>& from,
                                  const std::vector<void*>& to);
// Where the system refuses (a limit on locked memory), copies work all the same, slowly.
void lock_pages(void* memory, size_t bytes);
void unlock_pages(void* memory);

}  // namespace lehr::cuda
