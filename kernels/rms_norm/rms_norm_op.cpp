// Shows RMS norm to LibTorch: schemas, checks, CPU, Meta and Autograd. The two public ops are made
// of lehr::rms_norm_forward and _backward, which each device implements.
#include "kernels/rms_norm/rms_norm_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/common/chunks.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace lehr::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // output, sum, rstd
using Backward = std::tuple<at::Tensor, at::Tensor>;             // of x, weight

Forward forward(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                const at::Tensor& weight, double eps) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::rms_norm_forward", "")
                       .typed<Forward(const at::Tensor&, const std::optional<at::Tensor>&,
                                      const at::Tensor&, double)>();
  return op.call(x, residual, weight, eps);
}

Backward backward(const at::Tensor& grad, const std::optional<at::Tensor>& grad_sum,
                  const at::Tensor& x, const at::Tensor& rstd, const at::Tensor& weight) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::rms_norm_backward", "")
                       .typed<Backward(const at::Tensor&, const std::optional<at::Tensor>&,
                                       const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
  return op.call(grad, grad_sum, x, rstd, weight);
}

Forward forward_on_cpu(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                       const at::Tensor& weight, double eps) {
  const RmsNormCall call = prepare_rms_norm(x, residual, weight, eps);
  parallel_for(0, call.args.rows, rows_a_task(call.args.columns),
               [&](int64_t begin, int64_t end) { rms_norm_cpu_simd(call.args, begin, end); });
  return {call.output, call.sum, call.rstd};
}

Forward forward_on_meta(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                        const at::Tensor& weight, double eps) {
  const RmsNormCall call = prepare_rms_norm(x, residual, weight, eps);
  return {call.output, call.sum, call.rstd};
}

Backward backward_on_cpu(const at::Tensor& grad, const std::optional<at::Tensor>& grad_sum,
                         const at::Tensor& x, const at::Tensor& rstd, const at::Tensor& weight) {
  const RmsNormBackwardCall call = prepare_rms_norm_backward(grad, grad_sum, x, rstd, weight);
  const RmsNormBackward& args = call.args;
  // a chunk has 16 rows or more
  parallel_for(0, args.chunks, std::max<int64_t>(1, rows_a_task(args.columns) / 16),
               [&](int64_t begin, int64_t end) { rms_norm_backward_cpu_simd(args, begin, end); });
  sum_chunks(args.partials, args.chunks, args.columns, args.grad_weight);
  return call.results();
}

Backward backward_on_meta(const at::Tensor& grad, const std::optional<at::Tensor>& grad_sum,
                          const at::Tensor& x, const at::Tensor& rstd, const at::Tensor& weight) {
  return prepare_rms_norm_backward(grad, grad_sum, x, rstd, weight).results();
}

// x (or x and residual), weight -> normalised (and the sum)
class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const std::optional<at::Tensor>& residual, const at::Tensor& weight,
                               double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [output, sum, rstd] = kernels::forward(x, residual, weight, eps);
    context->save_for_backward({residual ? sum : x, rstd, weight});
    context->set_materialize_grads(false);
    if (residual) return {output, sum};
    return {output};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const bool adds = grads.size() == 2;
    const at::Tensor grad_sum = adds ? grads[1] : at::Tensor();
    if (!grads[0].defined()) return {grad_sum, grad_sum, {}, {}};
    auto [grad_x, grad_weight] = kernels::backward(
        grads[0], grad_sum.defined() ? std::optional<at::Tensor>(grad_sum) : std::nullopt, saved[0],
        saved[1], saved[2]);
    return {grad_x, adds ? grad_x : at::Tensor(), grad_weight, {}};
  }
};

at::Tensor rms_norm_autograd(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (needs_gradient(x, weight))
    return RmsNormFunction::apply(x, std::optional<at::Tensor>(), weight, eps)[0];
  const at::AutoDispatchBelowADInplaceOrView below;
  return std::get<0>(forward(x, std::nullopt, weight, eps));
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_autograd(const at::Tensor& x,
                                                         const at::Tensor& residual,
                                                         const at::Tensor& weight, double eps) {
  if (needs_gradient(x, residual, weight)) {
    const variable_list outputs =
        RmsNormFunction::apply(x, std::optional<at::Tensor>(residual), weight, eps);
    return {outputs[0], outputs[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  auto [output, sum, rstd] = forward(x, residual, weight, eps);
  return {output, sum};
}

// below autograd: inference mode, and what the guards above leave
at::Tensor rms_norm_composite(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return std::get<0>(forward(x, std::nullopt, weight, eps));
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_composite(const at::Tensor& x,
                                                          const at::Tensor& residual,
                                                          const at::Tensor& weight, double eps) {
  auto [output, sum, rstd] = forward(x, residual, weight, eps);
  return {output, sum};
}

}  // namespace

RmsNormCall prepare_rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                             const at::Tensor& weight, double eps) {
  const char* op = residual ? "add_rms_norm" : "rms_norm";
  const Float type = float_type_of(x, op, "x");
  const int64_t rows = rows_of(x, op);
  const Float parameter_type = check_parameter(weight, x, op, "weight");
  if (residual) check_like(*residual, x, op, "residual");

  RmsNormCall call;
  call.x = x.contiguous();
  call.weight = weight.contiguous();
  call.output = at::empty(x.sizes(), x.options());
  call.rstd = at::empty({rows}, x.options().dtype(at::kFloat));
  if (residual) {
    call.residual = residual->contiguous();
    call.sum = at::empty(x.sizes(), x.options());
  }
  if (x.is_meta()) return call;
  call.args = {call.x.const_data_ptr(),
               residual ? call.residual.const_data_ptr() : nullptr,
               call.weight.const_data_ptr(),
               call.output.mutable_data_ptr(),
               residual ? call.sum.mutable_data_ptr() : nullptr,
               call.rstd.mutable_data_ptr<float>(),
               rows,
               x.size(-1),
               static_cast<float>(eps),
               type,
               parameter_type};
  return call;
}

RmsNormBackwardCall prepare_rms_norm_backward(const at::Tensor& grad,
                                              const std::optional<at::Tensor>& grad_sum,
                                              const at::Tensor& x, const at::Tensor& rstd,
                                              const at::Tensor& weight) {
  const char* op = "rms_norm_backward";
  const Float type = float_type_of(x, op, "x");
  const int64_t rows = rows_of(x, op), columns = x.size(-1);
  const Float parameter_type = check_parameter(weight, x, op, "weight");
  check_like(grad, x, op, "grad");
  if (grad_sum) check_like(*grad_sum, x, op, "grad_sum");
  TORCH_CHECK(rstd.scalar_type() == at::kFloat && rstd.is_contiguous() && rstd.dim() == 1 &&
                  rstd.size(0) == rows && rstd.device() == x.device(),
              op, ": rstd must be that of the forward");
  const int64_t chunks = x.is_cuda() ? cuda_row_chunks(rows, columns) : cpu_row_chunks(rows);

  RmsNormBackwardCall call;
  call.grad = grad.contiguous();
  if (grad_sum) call.grad_sum = grad_sum->contiguous();
  call.x = x.contiguous();
  call.rstd = rstd;
  call.weight = weight.contiguous();
  call.grad_x = at::empty(x.sizes(), x.options());
  call.partials = at::empty({chunks, columns}, rstd.options());
  call.grad_weight = at::empty({columns}, rstd.options());
  if (x.is_meta()) return call;
  call.args = {call.grad.const_data_ptr(),
               grad_sum ? call.grad_sum.const_data_ptr() : nullptr,
               call.x.const_data_ptr(),
               call.weight.const_data_ptr(),
               call.rstd.const_data_ptr<float>(),
               call.grad_x.mutable_data_ptr(),
               call.partials.mutable_data_ptr<float>(),
               call.grad_weight.mutable_data_ptr<float>(),
               rows,
               columns,
               chunks,
               type,
               parameter_type};
  return call;
}

std::tuple<at::Tensor, at::Tensor> RmsNormBackwardCall::results() const {
  return {grad_x, grad_weight.to(weight.scalar_type())};
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::rms_norm", "")
                       .typed<at::Tensor(const at::Tensor&, const at::Tensor&, double)>();
  return op.call(x, weight, eps);
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                                const at::Tensor& weight, double eps) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::add_rms_norm", "")
                       .typed<std::tuple<at::Tensor, at::Tensor>(
                           const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return op.call(x, residual, weight, eps);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor");
  m.def(
      "add_rms_norm(Tensor x, Tensor residual, Tensor weight, float eps)"
      " -> (Tensor, Tensor)");
  m.def(
      "rms_norm_forward(Tensor x, Tensor? residual, Tensor weight, float eps)"
      " -> (Tensor, Tensor, Tensor)");
  m.def(
      "rms_norm_backward(Tensor grad, Tensor? grad_sum, Tensor x, Tensor rstd, Tensor weight)"
      " -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(lehr, CompositeExplicitAutograd, m) {
  m.impl("rms_norm", rms_norm_composite);
  m.impl("add_rms_norm", add_rms_norm_composite);
}
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("rms_norm_forward", forward_on_cpu);
  m.impl("rms_norm_backward", backward_on_cpu);
}
TORCH_LIBRARY_IMPL(lehr, Meta, m) {
  m.impl("rms_norm_forward", forward_on_meta);
  m.impl("rms_norm_backward", backward_on_meta);
}
// a gradient through the raw ops, or of the gradient, throws instead of being lost
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("rms_norm", rms_norm_autograd);
  m.impl("add_rms_norm", add_rms_norm_autograd);
  m.impl("rms_norm_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("rms_norm_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
