// The op for C++ callers, and what its CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/image_normalize/image_normalize.h"

namespace lehr::kernels {

// lehr::image_normalize through the dispatcher: uint8 [N, H, W, C] -> `type` [N, C, H, W] in
// channels-last memory, times scale[c] plus shift[c] (float32 [C] on the same device). `type` is
// kFloat, kBFloat16 or kHalf. No gradient flows to scale or shift: asking for one is an error.
at::Tensor image_normalize(const at::Tensor& images, const at::Tensor& scale,
                           const at::Tensor& shift, at::ScalarType type = at::kFloat);

// The checked arguments of one call; the tensors own what `args` points to.
struct ImageNormalizeCall {
  at::Tensor images, scale, shift;  // contiguous
  at::Tensor output;                // allocated
  ImageNormalize args;
};
ImageNormalizeCall prepare_image_normalize(const at::Tensor& images, const at::Tensor& scale,
                                           const at::Tensor& shift, at::ScalarType type);

}  // namespace lehr::kernels
