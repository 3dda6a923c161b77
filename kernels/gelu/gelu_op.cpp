// Shows GELU to LibTorch: schemas, checks, CPU, Meta and Autograd. The two public ops are made of
// lehr::gelu_forward and _backward, which each device implements.
#include "kernels/gelu/gelu_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
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

using Backward = std::tuple<at::Tensor, at::Tensor>;  // of x, bias

at::Tensor forward(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::gelu_forward", "")
                       .typed<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&)>();
  return op.call(x, bias);
}

Backward backward(const at::Tensor& grad, const at::Tensor& x,
                  const std::optional<at::Tensor>& bias) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::gelu_backward", "")
                       .typed<Backward(const at::Tensor&, const at::Tensor&,
                                       const std::optional<at::Tensor>&)>();
  return op.call(grad, x, bias);
}

// about 16k elements a task: an element costs some ten instructions
constexpr int64_t kElementsATask = 16384;

at::Tensor forward_on_cpu(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  const GeluCall call = prepare_gelu(x, bias);
  const Gelu& args = call.args;
  const bool rows = args.bias != nullptr;
  parallel_for(0, rows ? args.rows : args.rows * args.columns,
               rows ? std::max<int64_t>(1, kElementsATask / args.columns) : kElementsATask,
               [&](int64_t begin, int64_t end) { gelu_cpu_simd(args, begin, end); });
  return call.output;
}

at::Tensor forward_on_meta(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  return prepare_gelu(x, bias).output;
}

Backward backward_on_cpu(const at::Tensor& grad, const at::Tensor& x,
                         const std::optional<at::Tensor>& bias) {
  const GeluBackwardCall call = prepare_gelu_backward(grad, x, bias);
  const GeluBackward& args = call.args;
  const bool chunks = args.bias != nullptr;
  // a chunk has 16 rows or more
  parallel_for(0, chunks ? args.chunks : args.rows * args.columns,
               chunks ? std::max<int64_t>(1, kElementsATask / 16 / args.columns) : kElementsATask,
               [&](int64_t begin, int64_t end) { gelu_backward_cpu_simd(args, begin, end); });
  if (chunks) sum_chunks(args.partials, args.chunks, args.columns, args.grad_bias);
  return call.results();
}

Backward backward_on_meta(const at::Tensor& grad, const at::Tensor& x,
                          const std::optional<at::Tensor>& bias) {
  return prepare_gelu_backward(grad, x, bias).results();
}

class GeluFunction : public torch::autograd::Function<GeluFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const std::optional<at::Tensor>& bias) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, bias.value_or(at::Tensor())});
    context->set_materialize_grads(false);
    return {kernels::forward(x, bias)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (!grads[0].defined()) return {{}, {}};
    const variable_list saved = context->get_saved_variables();
    auto [grad_x, grad_bias] =
        kernels::backward(grads[0], saved[0],
                          saved[1].defined() ? std::optional<at::Tensor>(saved[1]) : std::nullopt);
    return {grad_x, grad_bias};
  }
};

at::Tensor gelu_autograd(const at::Tensor& x) {
  if (needs_gradient(x)) return GeluFunction::apply(x, std::optional<at::Tensor>())[0];
  const at::AutoDispatchBelowADInplaceOrView below;
  return forward(x, std::nullopt);
}
at::Tensor bias_gelu_autograd(const at::Tensor& x, const at::Tensor& bias) {
  if (needs_gradient(x, bias)) return GeluFunction::apply(x, std::optional<at::Tensor>(bias))[0];
  const at::AutoDispatchBelowADInplaceOrView below;
  return forward(x, bias);
}

// below autograd: inference mode, and what the guards above leave
at::Tensor gelu_composite(const at::Tensor& x) { return forward(x, std::nullopt); }
at::Tensor bias_gelu_composite(const at::Tensor& x, const at::Tensor& bias) {
  return forward(x, bias);
}

// rows and columns: with a bias its length, without one whatever the shape is
Float check(const at::Tensor& x, const std::optional<at::Tensor>& bias, const char* op,
            int64_t* rows, int64_t* columns) {
  if (!bias) {
    *rows = 1;
    *columns = x.numel();
    return Float::kFloat32;
  }
  *rows = rows_of(x, op);
  *columns = x.size(-1);
  return check_parameter(*bias, x, op, "bias");
}

}  // namespace

GeluCall prepare_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  const char* op = bias ? "bias_gelu" : "gelu";
  const Float type = float_type_of(x, op, "x");
  int64_t rows = 0, columns = 0;
  const Float bias_type = check(x, bias, op, &rows, &columns);

  GeluCall call;
  call.x = x.contiguous();
  if (bias) call.bias = bias->contiguous();
  call.output = at::empty(x.sizes(), x.options());
  if (x.is_meta()) return call;
  call.args = {call.x.const_data_ptr(),
               bias ? call.bias.const_data_ptr() : nullptr,
               call.output.mutable_data_ptr(),
               rows,
               columns,
               type,
               bias_type};
  return call;
}

GeluBackwardCall prepare_gelu_backward(const at::Tensor& grad, const at::Tensor& x,
                                       const std::optional<at::Tensor>& bias) {
  const char* op = "gelu_backward";
  const Float type = float_type_of(x, op, "x");
  int64_t rows = 0, columns = 0;
  const Float bias_type = check(x, bias, op, &rows, &columns);
  check_like(grad, x, op, "grad");
  const int64_t chunks = x.is_cuda() ? gelu_cuda_chunks(rows, columns) : cpu_row_chunks(rows);

  GeluBackwardCall call;
  call.grad = grad.contiguous();
  call.x = x.contiguous();
  call.grad_x = at::empty(x.sizes(), x.options());
  if (bias) {
    call.bias = bias->contiguous();
    call.partials = at::empty({chunks, columns}, x.options().dtype(at::kFloat));
    call.grad_bias = at::empty({columns}, call.partials.options());
  }
  if (x.is_meta()) return call;
  call.args = {call.grad.const_data_ptr(),
               call.x.const_data_ptr(),
               bias ? call.bias.const_data_ptr() : nullptr,
               call.grad_x.mutable_data_ptr(),
               bias ? call.partials.mutable_data_ptr<float>() : nullptr,
               bias ? call.grad_bias.mutable_data_ptr<float>() : nullptr,
               chunks,
               rows,
               columns,
               type,
               bias_type};
  return call;
}

std::tuple<at::Tensor, at::Tensor> GeluBackwardCall::results() const {
  return {grad_x, bias.defined() ? grad_bias.to(bias.scalar_type()) : at::Tensor()};
}

at::Tensor gelu(const at::Tensor& x) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::gelu", "")
                       .typed<at::Tensor(const at::Tensor&)>();
  return op.call(x);
}

at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::bias_gelu", "")
                       .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  return op.call(x, bias);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("gelu(Tensor x) -> Tensor");
  m.def("bias_gelu(Tensor x, Tensor bias) -> Tensor");
  m.def("gelu_forward(Tensor x, Tensor? bias) -> Tensor");
  m.def("gelu_backward(Tensor grad, Tensor x, Tensor? bias) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(lehr, CompositeExplicitAutograd, m) {
  m.impl("gelu", gelu_composite);
  m.impl("bias_gelu", bias_gelu_composite);
}
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("gelu_forward", forward_on_cpu);
  m.impl("gelu_backward", backward_on_cpu);
}
TORCH_LIBRARY_IMPL(lehr, Meta, m) {
  m.impl("gelu_forward", forward_on_meta);
  m.impl("gelu_backward", backward_on_meta);
}
// a gradient through the raw ops, or of the gradient, throws instead of being lost
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("gelu", gelu_autograd);
  m.impl("bias_gelu", bias_gelu_autograd);
  m.impl("gelu_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("gelu_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
