// The products of layers: matrices and convolutions. A CPU without instructions for bf16 or fp16
// would multiply them in ATen's plain loops, ten and more times slower than float32 (measured: 14
// on AVX2). There the operands, rounded to the low precision, are multiplied in float32 and the
// result is rounded: what the instructions do, to the order of the sums.
#pragma once

#include <ATen/core/Tensor.h>

namespace lehr::models {

// [..., in] by weight [out, in] -> [..., out]; bias [out] or undefined.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});
at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  int64_t stride, int64_t padding);

// Whether products run with Lehr's epilogues: on a GPU, where `training.kernels` says so.
bool products_are_custom(const at::Tensor& x, const at::Tensor& weight);
// Whether this thread computes under autocast on the tensor's device.
bool autocasts(const at::Tensor& tensor);
// The type to which a product with `weight` rounds its operands: autocast's, else the weight's own.
at::ScalarType product_type(const at::Tensor& weight);
// Whether products of that type on the weight's device are computed in float32 as above.
bool products_in_float(const at::Tensor& weight);

}  // namespace lehr::models
