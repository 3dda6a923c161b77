// Shows SwiGLU to LibTorch: schemas, checks, CPU, Meta and Autograd. The public op is made of
// lehr::swiglu_forward and _backward, which each device implements.
#include "kernels/swiglu/swiglu_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace lehr::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor forward(const at::Tensor& gate_up) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::swiglu_forward", "")
                       .typed<at::Tensor(const at::Tensor&)>();
  return op.call(gate_up);
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::swiglu_backward", "")
                       .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  return op.call(grad, gate_up);
}

// about 16k elements a task: an element costs some ten instructions
int64_t rows_a_swiglu_task(int64_t columns) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns));
}

at::Tensor forward_on_cpu(const at::Tensor& gate_up) {
  const SwiGluCall call = prepare_swiglu(gate_up);
  parallel_for(0, call.args.rows, rows_a_swiglu_task(call.args.columns),
               [&](int64_t begin, int64_t end) { swiglu_cpu_simd(call.args, begin, end); });
  return call.output;
}

at::Tensor forward_on_meta(const at::Tensor& gate_up) { return prepare_swiglu(gate_up).output; }

at::Tensor backward_on_cpu(const at::Tensor& grad, const at::Tensor& gate_up) {
  const SwiGluBackwardCall call = prepare_swiglu_backward(grad, gate_up);
  parallel_for(
      0, call.args.rows, rows_a_swiglu_task(call.args.columns),
      [&](int64_t begin, int64_t end) { swiglu_backward_cpu_simd(call.args, begin, end); });
  return call.grad_gate_up;
}

at::Tensor backward_on_meta(const at::Tensor& grad, const at::Tensor& gate_up) {
  return prepare_swiglu_backward(grad, gate_up).grad_gate_up;
}

class SwiGluFunction : public torch::autograd::Function<SwiGluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({gate_up});
    context->set_materialize_grads(false);
    return kernels::forward(gate_up);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (!grads[0].defined()) return {at::Tensor()};
    return {kernels::backward(grads[0], context->get_saved_variables()[0])};
  }
};

at::Tensor swiglu_autograd(const at::Tensor& gate_up) {
  if (needs_gradient(gate_up)) return SwiGluFunction::apply(gate_up);
  const at::AutoDispatchBelowADInplaceOrView below;
  return forward(gate_up);
}

// below autograd: inference mode, and what the guard above leaves
at::Tensor swiglu_composite(const at::Tensor& gate_up) { return forward(gate_up); }

std::vector<int64_t> output_sizes(const at::Tensor& gate_up) {
  TORCH_CHECK(gate_up.dim() >= 1 && gate_up.size(-1) >= 2 && gate_up.size(-1) % 2 == 0,
              "swiglu: gate_up must have an even last dimension of 2 or more, not ",
              gate_up.sizes());
  std::vector<int64_t> sizes = gate_up.sizes().vec();
  sizes.back() /= 2;
  return sizes;
}

}  // namespace

SwiGluCall prepare_swiglu(const at::Tensor& gate_up) {
  const Float type = float_type_of(gate_up, "swiglu", "gate_up");
  SwiGluCall call;
  call.output = at::empty(output_sizes(gate_up), gate_up.options());
  call.gate_up = gate_up.contiguous();
  if (gate_up.is_meta()) return call;
  const int64_t columns = call.output.size(-1);
  call.args = {call.gate_up.const_data_ptr(), call.output.mutable_data_ptr(),
               call.output.numel() / columns, columns, type};
  return call;
}

SwiGluBackwardCall prepare_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  const char* op = "swiglu_backward";
  const Float type = float_type_of(gate_up, op, "gate_up");
  TORCH_CHECK(grad.sizes() == at::IntArrayRef(output_sizes(gate_up)) &&
                  grad.scalar_type() == gate_up.scalar_type() && grad.device() == gate_up.device(),
              op, ": grad must be as the output is, not ", grad.scalar_type(), " ", grad.sizes());
  SwiGluBackwardCall call;
  call.grad = grad.contiguous();
  call.gate_up = gate_up.contiguous();
  call.grad_gate_up = at::empty(gate_up.sizes(), gate_up.options());
  if (gate_up.is_meta()) return call;
  const int64_t columns = grad.size(-1);
  call.args = {call.grad.const_data_ptr(),
               call.gate_up.const_data_ptr(),
               call.grad_gate_up.mutable_data_ptr(),
               grad.numel() / columns,
               columns,
               type};
  return call;
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::swiglu", "")
                       .typed<at::Tensor(const at::Tensor&)>();
  return op.call(gate_up);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("swiglu(Tensor gate_up) -> Tensor");
  m.def("swiglu_forward(Tensor gate_up) -> Tensor");
  m.def("swiglu_backward(Tensor grad, Tensor gate_up) -> Tensor");
}
TORCH_LIBRARY_IMPL(lehr, CompositeExplicitAutograd, m) { m.impl("swiglu", swiglu_composite); }
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("swiglu_forward", forward_on_cpu);
  m.impl("swiglu_backward", backward_on_cpu);
}
TORCH_LIBRARY_IMPL(lehr, Meta, m) {
  m.impl("swiglu_forward", forward_on_meta);
  m.impl("swiglu_backward", backward_on_meta);
}
// a gradient through the raw ops, or of the gradient, throws instead of being lost
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("swiglu", swiglu_autograd);
  m.impl("swiglu_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("swiglu_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
