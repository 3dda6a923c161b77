// Batches on their way to the device, beside the computation instead of in front of it.
#pragma once

#include <ATen/core/Tensor.h>

namespace lehr::cuda {

// A page-locked copy from LibTorch's cache of pinned memory (the same tensor when it is pinned).
at::Tensor pin(const at::Tensor& host);

// Copies pinned `host` to the current device on a stream of its own and makes the current stream
// wait for it; the CPU waits for nothing. Strides are kept. The caller may drop `host` at once: the
// cache of pinned memory waits for the copy before it hands the block out again.
at::Tensor copy_in(const at::Tensor& host);

}  // namespace lehr::cuda
