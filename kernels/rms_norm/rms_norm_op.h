// The ops for C++ callers, and what their CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "kernels/rms_norm/rms_norm.h"

namespace lehr::kernels {

// lehr::rms_norm: x [..., D] of float32, bfloat16 or float16, divided by its root mean square
// over the last dimension; weight [D], float32 or of x's dtype. Differentiable once in both; the
// gradient of weight comes in its dtype and is the same bits for any number of threads.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// lehr::add_rms_norm: (normalised, sum) with sum = x + residual, both of x's shape and dtype and
// differentiable; what flows into the sum is added in the backward's own pass.
std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                                const at::Tensor& weight, double eps);

// The checked arguments of one call; the tensors own what `args` points to.
struct RmsNormCall {
  at::Tensor x, residual, weight;  // contiguous
  at::Tensor output, sum, rstd;    // allocated; sum is undefined without a residual
  RmsNorm args;
};
RmsNormCall prepare_rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                             const at::Tensor& weight, double eps);

struct RmsNormBackwardCall {
  at::Tensor grad, grad_sum, x, rstd, weight;
  at::Tensor grad_x, partials, grad_weight;  // allocated
  RmsNormBackward args;
  // (grad_x, grad_weight), the latter in weight's dtype
  std::tuple<at::Tensor, at::Tensor> results() const;
};
RmsNormBackwardCall prepare_rms_norm_backward(const at::Tensor& grad,
                                              const std::optional<at::Tensor>& grad_sum,
                                              const at::Tensor& x, const at::Tensor& rstd,
                                              const at::Tensor& weight);

}  // namespace lehr::kernels
