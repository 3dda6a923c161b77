// The ops for C++ callers, and what their CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "kernels/gelu/gelu.h"

namespace lehr::kernels {

// lehr::gelu: the tanh form, of x of any shape in float32, bfloat16 or float16; differentiable
// once.
at::Tensor gelu(const at::Tensor& x);

// lehr::bias_gelu: gelu(x + bias) with x [..., D] and bias [D] in float32 or x's dtype, the
// addition not rounded; differentiable once in both. The gradient of bias comes in its dtype and is
// the same bits for any number of threads.
at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias);

// The checked arguments of one call; the tensors own what `args` points to.
struct GeluCall {
  at::Tensor x, bias;  // contiguous; bias may be undefined
  at::Tensor output;   // allocated
  Gelu args;
};
GeluCall prepare_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias);

struct GeluBackwardCall {
  at::Tensor grad, x, bias;
  at::Tensor grad_x, partials, grad_bias;  // allocated; the last two with a bias only
  GeluBackward args;
  std::tuple<at::Tensor, at::Tensor> results() const;  // (grad_x, grad_bias in bias's dtype)
};
GeluBackwardCall prepare_gelu_backward(const at::Tensor& grad, const at::Tensor& x,
                                       const std::optional<at::Tensor>& bias);

}  // namespace lehr::kernels
