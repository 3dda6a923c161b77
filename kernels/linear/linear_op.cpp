// Shows linear layers to LibTorch: schemas, checks, Autograd, and the plain path in ATen's ops,
// which is also what the CPU and Meta take. The public ops are made of three raw ones.
#include "kernels/linear/linear_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/common/op.h"

namespace lehr::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<at::Tensor>;

template <class Signature>
auto op_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

Two forward(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias, bool gelu) {
  static auto op =
      op_of<Two(const at::Tensor&, const at::Tensor&, const Maybe&, bool)>("lehr::linear_forward");
  return op.call(x, weight, bias, gelu);
}
Two grad_input(const at::Tensor& grad, const at::Tensor& weight, const Maybe& before) {
  static auto op =
      op_of<Two(const at::Tensor&, const at::Tensor&, const Maybe&)>("lehr::linear_grad_input");
  return op.call(grad, weight, before);
}
Two grad_weight(const at::Tensor& grad, const at::Tensor& x, bool transposed, bool bias) {
  static auto op =
      op_of<Two(const at::Tensor&, const at::Tensor&, bool, bool)>("lehr::linear_grad_weight");
  return op.call(grad, x, transposed, bias);
}

// a packed matrix, row-major in memory or the other way round
struct Matrix {
  at::Tensor memory;
  bool transposed;
};
bool is_transposed(const at::Tensor& matrix) {
  return !matrix.is_contiguous() && matrix.t().is_contiguous();
}
Matrix packed(const at::Tensor& matrix) {
  if (is_transposed(matrix)) return {matrix.t(), true};
  return {matrix.contiguous(), false};
}

at::Tensor as_rows(const at::Tensor& x, const char* op) {
  return x.reshape({rows_of(x, op), x.size(-1)}).contiguous();
}
at::Tensor with_shape_of(const at::Tensor& rows, const at::Tensor& like) {
  at::DimVector sizes(like.sizes());
  sizes.back() = rows.size(-1);
  return rows.view(sizes);
}

void check_same_kind(const at::Tensor& tensor, const at::Tensor& x, const char* name) {
  TORCH_CHECK(tensor.scalar_type() == x.scalar_type() && tensor.device() == x.device(),
              "linear: ", name, " must be ", x.scalar_type(), " on ", x.device(), " as x is, not ",
              tensor.scalar_type(), " on ", tensor.device());
}
void check_weight(const at::Tensor& weight, const at::Tensor& x, int64_t dimension,
                  const char* name) {
  TORCH_CHECK(weight.dim() == 2 && weight.size(dimension) == x.size(-1) && weight.numel() > 0,
              "linear: weight must have 2 dimensions and fit ", name, "'s last one, ", x.size(-1),
              ", not be ", weight.sizes());
  check_same_kind(weight, x, "weight");
}

bool done(const Multiply& multiply, const Product& product) {
  return product.rows > 0 && product.inner > 0 && multiply(product);
}

class Linear : public torch::autograd::Function<Linear> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const at::Tensor& weight, const Maybe& bias) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    context->set_materialize_grads(false);
    return {std::get<0>(kernels::forward(x, weight, bias, false))};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list results(3);
    if (!grads[0].defined()) return results;
    const variable_list saved = context->get_saved_variables();
    const bool bias = context->saved_data["bias"].toBool();
    if (context->needs_input_grad(0))
      results[0] = std::get<0>(grad_input(grads[0], saved[1], std::nullopt));
    if (context->needs_input_grad(1) || (bias && context->needs_input_grad(2)))
      std::tie(results[1], results[2]) =
          grad_weight(grads[0], saved[0], is_transposed(saved[1]), bias);
    return results;
  }
};

class LinearGeluLinear : public torch::autograd::Function<LinearGeluLinear> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const at::Tensor& weight_1, const at::Tensor& bias_1,
                               const at::Tensor& weight_2, const at::Tensor& bias_2) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [after, before] = kernels::forward(x, weight_1, bias_1, true);
    context->save_for_backward({x, weight_1, weight_2, before, after});
    context->set_materialize_grads(false);
    return {std::get<0>(kernels::forward(after, weight_2, bias_2, false))};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list results(5);
    if (!grads[0].defined()) return results;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight_1 = saved[1], &weight_2 = saved[2];
    if (context->needs_input_grad(3) || context->needs_input_grad(4))
      std::tie(results[3], results[4]) =
          grad_weight(grads[0], saved[4], is_transposed(weight_2), true);
    if (!context->needs_input_grad(0) && !context->needs_input_grad(1) &&
        !context->needs_input_grad(2))
      return results;
    at::Tensor between;
    std::tie(between, results[2]) = grad_input(grads[0], weight_2, saved[3]);
    if (context->needs_input_grad(0))
      results[0] = std::get<0>(grad_input(between, weight_1, std::nullopt));
    if (context->needs_input_grad(1))
      results[1] = std::get<0>(grad_weight(between, x, is_transposed(weight_1), false));
    return results;
  }
};

at::Tensor linear_composite(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias) {
  return std::get<0>(forward(x, weight, bias, false));
}
at::Tensor linear_gelu_linear_composite(const at::Tensor& x, const at::Tensor& weight_1,
                                        const at::Tensor& bias_1, const at::Tensor& weight_2,
                                        const at::Tensor& bias_2) {
  return std::get<0>(
      forward(std::get<0>(forward(x, weight_1, bias_1, true)), weight_2, bias_2, false));
}

at::Tensor linear_autograd(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias) {
  if (needs_gradient(x, weight) || (bias && needs_gradient(*bias)))
    return Linear::apply(x, weight, bias)[0];
  const at::AutoDispatchBelowADInplaceOrView below;
  return linear_composite(x, weight, bias);
}
at::Tensor linear_gelu_linear_autograd(const at::Tensor& x, const at::Tensor& weight_1,
                                       const at::Tensor& bias_1, const at::Tensor& weight_2,
                                       const at::Tensor& bias_2) {
  if (needs_gradient(x, weight_1, bias_1, weight_2, bias_2))
    return LinearGeluLinear::apply(x, weight_1, bias_1, weight_2, bias_2)[0];
  const at::AutoDispatchBelowADInplaceOrView below;
  return linear_gelu_linear_composite(x, weight_1, bias_1, weight_2, bias_2);
}

Two plain_forward(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias, bool gelu) {
  return linear_forward_by({}, x, weight, bias, gelu);
}
Two plain_grad_input(const at::Tensor& grad, const at::Tensor& weight, const Maybe& before) {
  return linear_grad_input_by({}, grad, weight, before);
}
Two plain_grad_weight(const at::Tensor& grad, const at::Tensor& x, bool transposed, bool bias) {
  return linear_grad_weight_by({}, grad, x, transposed, bias);
}

}  // namespace

Two linear_forward_by(const Multiply& multiply, const at::Tensor& x, const at::Tensor& weight,
                      const Maybe& bias, bool gelu) {
  const Float type = float_type_of(x, "linear", "x");
  const at::Tensor in = as_rows(x, "linear");
  check_weight(weight, x, 1, "x");
  TORCH_CHECK(bias || !gelu, "linear: GELU comes with a bias");
  if (bias) {
    TORCH_CHECK(bias->dim() == 1 && bias->size(0) == weight.size(0), "linear: bias must be [",
                weight.size(0), "], not ", bias->sizes());
    check_same_kind(*bias, x, "bias");
  }
  if (multiply) {
    const Matrix right = packed(weight);  // stored transposed where the weight itself is not
    const at::Tensor out = at::empty({in.size(0), weight.size(0)}, x.options());
    const at::Tensor before = gelu ? at::empty_like(out) : at::Tensor();
    const at::Tensor row = bias ? bias->contiguous() : at::Tensor();
    if (done(multiply, {in.const_data_ptr(), right.memory.const_data_ptr(), out.mutable_data_ptr(),
                        bias ? const_cast<void*>(row.const_data_ptr()) : nullptr,
                        gelu ? before.mutable_data_ptr() : nullptr, in.size(0), in.size(1),
                        weight.size(0), false, !right.transposed, type,
                        gelu   ? Epilogue::kBiasGelu
                        : bias ? Epilogue::kBias
                               : Epilogue::kNone}))
      return {with_shape_of(out, x), gelu ? with_shape_of(before, x) : before};
  }
  const at::Tensor out = with_shape_of(at::linear(in, weight, bias), x);
  if (!gelu) return {out, at::Tensor()};
  return {at::gelu(out, "tanh"), out};
}

Two linear_grad_input_by(const Multiply& multiply, const at::Tensor& grad, const at::Tensor& weight,
                         const Maybe& before) {
  const Float type = float_type_of(grad, "linear_grad_input", "grad");
  const at::Tensor in = as_rows(grad, "linear_grad_input");
  check_weight(weight, grad, 0, "grad");
  at::Tensor at_before;
  if (before) {
    TORCH_CHECK(
        before->numel() == in.size(0) * weight.size(1) && before->size(-1) == weight.size(1),
        "linear_grad_input: what went into GELU is ", before->sizes(), " for a grad of ",
        grad.sizes());
    check_same_kind(*before, grad, "what went into GELU");
    at_before = as_rows(*before, "linear_grad_input");
  }
  if (multiply) {
    const Matrix right = packed(weight);
    const at::Tensor out = at::empty({in.size(0), weight.size(1)}, grad.options());
    const at::Tensor sums = before ? at::empty({weight.size(1)}, grad.options()) : at::Tensor();
    if (done(multiply, {in.const_data_ptr(), right.memory.const_data_ptr(), out.mutable_data_ptr(),
                        before ? sums.mutable_data_ptr() : nullptr,
                        before ? const_cast<void*>(at_before.const_data_ptr()) : nullptr,
                        in.size(0), in.size(1), weight.size(1), false, right.transposed, type,
                        before ? Epilogue::kGeluSlope : Epilogue::kNone}))
      return {with_shape_of(out, grad), sums};
  }
  at::Tensor out = at::mm(in, weight);
  if (!before) return {with_shape_of(out, grad), at::Tensor()};
  out = at::gelu_backward(out, at_before, "tanh");
  return {with_shape_of(out, grad), out.sum(0)};
}

Two linear_grad_weight_by(const Multiply& multiply, const at::Tensor& grad, const at::Tensor& x,
                          bool transposed, bool bias) {
  const Float type = float_type_of(grad, "linear_grad_weight", "grad");
  const at::Tensor g = as_rows(grad, "linear_grad_weight"), in = as_rows(x, "linear_grad_weight");
  TORCH_CHECK(g.size(0) == in.size(0), "linear_grad_weight: grad is ", grad.sizes(), " and x ",
              x.sizes());
  check_same_kind(grad, x, "grad");
  // memory as the weight's: [F, D] or [D, F]
  const at::Tensor &left = transposed ? in : g, &right = transposed ? g : in;
  at::Tensor out, sums;
  if (multiply) {
    out = at::empty({left.size(1), right.size(1)}, grad.options());
    if (bias) sums = at::empty({g.size(1)}, grad.options());
    if (!done(multiply, {left.const_data_ptr(), right.const_data_ptr(), out.mutable_data_ptr(),
                         bias ? sums.mutable_data_ptr() : nullptr, nullptr, left.size(1), g.size(0),
                         right.size(1), true, false, type,
                         !bias        ? Epilogue::kNone
                         : transposed ? Epilogue::kSumRight
                                      : Epilogue::kSumLeft}))
      out.reset();
  }
  if (!out.defined()) {
    out = at::mm(left.t(), right);
    if (bias) sums = g.sum(0);
  }
  return {transposed ? out.t() : out, sums};
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias) {
  static auto op =
      op_of<at::Tensor(const at::Tensor&, const at::Tensor&, const Maybe&)>("lehr::linear");
  return op.call(x, weight, bias);
}

at::Tensor linear_gelu_linear(const at::Tensor& x, const at::Tensor& weight_1,
                              const at::Tensor& bias_1, const at::Tensor& weight_2,
                              const at::Tensor& bias_2) {
  static auto op =
      op_of<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                       const at::Tensor&)>("lehr::linear_gelu_linear");
  return op.call(x, weight_1, bias_1, weight_2, bias_2);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "linear_gelu_linear(Tensor x, Tensor weight_1, Tensor bias_1, Tensor weight_2, "
      "Tensor bias_2) -> Tensor");
  m.def("linear_forward(Tensor x, Tensor weight, Tensor? bias, bool gelu) -> (Tensor, Tensor)");
  m.def("linear_grad_input(Tensor grad, Tensor weight, Tensor? before) -> (Tensor, Tensor)");
  m.def(
      "linear_grad_weight(Tensor grad, Tensor x, bool transposed, bool bias) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(lehr, CompositeExplicitAutograd, m) {
  m.impl("linear", linear_composite);
  m.impl("linear_gelu_linear", linear_gelu_linear_composite);
  m.impl("linear_forward", plain_forward);
  m.impl("linear_grad_input", plain_grad_input);
  m.impl("linear_grad_weight", plain_grad_weight);
}
// a gradient through the raw ops, or of the gradient, throws instead of being lost
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("linear", linear_autograd);
  m.impl("linear_gelu_linear", linear_gelu_linear_autograd);
  m.impl("linear_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("linear_grad_input", torch::autograd::autogradNotImplementedFallback());
  m.impl("linear_grad_weight", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
