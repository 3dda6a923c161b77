// The ops for C++ callers, and what their CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "kernels/layer_norm/layer_norm.h"

namespace lehr::kernels {

// lehr::layer_norm: x [..., D] of float32, bfloat16 or float16, normalised over the last dimension;
// weight and bias [D], both float32 or both of x's dtype. Differentiable once in all three; the
// gradients of weight and bias come in their dtype and are the same bits for any number of threads.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps);

// lehr::add_layer_norm: (normalised, sum) with sum = x + residual, both of x's shape and dtype and
// differentiable; what flows into the sum is added in the backward's own pass.
std::tuple<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& residual,
                                                  const at::Tensor& weight, const at::Tensor& bias,
                                                  double eps);

// The checked arguments of one call; the tensors own what `args` points to.
struct LayerNormCall {
  at::Tensor x, residual, weight, bias;  // contiguous
  at::Tensor output, sum, stats;         // allocated; sum is undefined without a residual
  LayerNorm args;
};
LayerNormCall prepare_layer_norm(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                                 const at::Tensor& weight, const at::Tensor& bias, double eps);

struct LayerNormBackwardCall {
  at::Tensor grad, grad_sum, x, stats, weight;
  at::Tensor grad_x, partials, grad_parameters;  // allocated
  LayerNormBackward args;
  // (grad_x, grad_weight, grad_bias), the last two in weight's dtype
  std::tuple<at::Tensor, at::Tensor, at::Tensor> results() const;
};
LayerNormBackwardCall prepare_layer_norm_backward(const at::Tensor& grad,
                                                  const std::optional<at::Tensor>& grad_sum,
                                                  const at::Tensor& x, const at::Tensor& stats,
                                                  const at::Tensor& weight);

}  // namespace lehr::kernels
