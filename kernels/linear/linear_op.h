// Linear layers for C++ callers, and what their CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <tuple>

#include "kernels/linear/linear.h"

namespace lehr::kernels {

// lehr::linear: x [..., D] by weight [F, D], plus bias [F] if there is one -> [..., F]. All of one
// dtype, float32, bfloat16 or float16; differentiable once. The weight may be a transposed view,
// and its gradient then is one, too.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias);

// lehr::linear_gelu_linear: linear(gelu(linear(x, weight_1, bias_1)), weight_2, bias_2) with GELU
// by its tanh form; the same rules. Keeps x and, of the width between, what goes into GELU and what
// comes out.
at::Tensor linear_gelu_linear(const at::Tensor& x, const at::Tensor& weight_1,
                              const at::Tensor& bias_1, const at::Tensor& weight_2,
                              const at::Tensor& bias_2);

// Does a product, or does nothing and says false: then ATen's ops do. Empty: they always do.
using Multiply = std::function<bool(const Product&)>;

// The raw ops lehr::linear_forward, linear_grad_input and linear_grad_weight by whatever
// multiplies.
using Two = std::tuple<at::Tensor, at::Tensor>;
// (the output, what went into GELU); the second undefined without GELU
Two linear_forward_by(const Multiply& multiply, const at::Tensor& x, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias, bool gelu);
// (grad by weight, undefined), or with `before`, which went into GELU: that times GELU's slope, and
// its sum over the rows
Two linear_grad_input_by(const Multiply& multiply, const at::Tensor& grad, const at::Tensor& weight,
                         const std::optional<at::Tensor>& before);
// (the weight's gradient [F, D], transposed in memory or not; the bias's, or undefined)
Two linear_grad_weight_by(const Multiply& multiply, const at::Tensor& grad, const at::Tensor& x,
                          bool transposed, bool bias);

}  // namespace lehr::kernels
