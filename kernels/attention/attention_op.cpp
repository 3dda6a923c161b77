// Shows attention to LibTorch: schemas, checks, CPU, Meta and Autograd. The public op is made of
// lehr::causal_attention_forward and _backward.
#include "kernels/attention/attention_op.h"

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
using Outputs = std::tuple<at::Tensor, at::Tensor>;  // output, log_sums

Outputs forward(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_size) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::causal_attention_forward", "")
                       .typed<Outputs(const at::Tensor&, int64_t, int64_t, int64_t)>();
  return op.call(qkv, heads, kv_heads, head_size);
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& qkv, const at::Tensor& output,
                    const at::Tensor& log_sums, int64_t heads, int64_t kv_heads,
                    int64_t head_size) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::causal_attention_backward", "")
                       .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                         const at::Tensor&, int64_t, int64_t, int64_t)>();
  return op.call(grad, qkv, output, log_sums, heads, kv_heads, head_size);
}

// Allocated results of a checked call, on whatever device.
Outputs allocate(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_size) {
  const char* op = "causal_attention";
  float_type_of(qkv, op, "qkv");
  TORCH_CHECK(heads >= 1 && kv_heads >= 1 && head_size >= 1 && heads % kv_heads == 0, op, ": ",
              kv_heads, " heads of keys must divide ", heads, " heads of queries");
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) == (heads + 2 * kv_heads) * head_size, op,
              ": qkv must be [B, T, ", (heads + 2 * kv_heads) * head_size, "], not ", qkv.sizes());
  const int64_t batch = qkv.size(0), time = qkv.size(1);
  return {at::empty({batch, time, heads * head_size}, qkv.options()),
          at::empty({batch, heads, time}, qkv.options().dtype(at::kFloat))};
}

Outputs forward_on_cpu(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_size) {
  auto [output, log_sums] = allocate(qkv, heads, kv_heads, head_size);
  const at::Tensor plain = qkv.contiguous();
  const Attention args{plain.const_data_ptr(),
                       output.mutable_data_ptr(),
                       log_sums.mutable_data_ptr<float>(),
                       qkv.size(0),
                       qkv.size(1),
                       heads,
                       kv_heads,
                       head_size,
                       float_type_of(qkv, "causal_attention", "qkv")};
  if (args.time > 0)
    parallel_for(0, args.batch * heads, 1,
                 [&](int64_t begin, int64_t end) { attention_cpu_simd(args, begin, end); });
  return {output, log_sums};
}

at::Tensor backward_on_cpu(const at::Tensor& grad, const at::Tensor& qkv, const at::Tensor& output,
                           const at::Tensor& log_sums, int64_t heads, int64_t kv_heads,
                           int64_t head_size) {
  check_like(grad, output, "causal_attention_backward", "grad");
  at::Tensor grad_qkv = at::empty(qkv.sizes(), qkv.options());
  const at::Tensor plain_grad = grad.contiguous(), plain_qkv = qkv.contiguous(),
                   plain_output = output.contiguous();
  const AttentionBackward args{plain_grad.const_data_ptr(),
                               plain_qkv.const_data_ptr(),
                               plain_output.const_data_ptr(),
                               log_sums.const_data_ptr<float>(),
                               grad_qkv.mutable_data_ptr(),
                               qkv.size(0),
                               qkv.size(1),
                               heads,
                               kv_heads,
                               head_size,
                               float_type_of(qkv, "causal_attention_backward", "qkv")};
  if (args.time > 0)
    parallel_for(0, args.batch * kv_heads, 1, [&](int64_t begin, int64_t end) {
      attention_backward_cpu_simd(args, begin, end);
    });
  return grad_qkv;
}

at::Tensor backward_on_meta(const at::Tensor&, const at::Tensor& qkv, const at::Tensor&,
                            const at::Tensor&, int64_t, int64_t, int64_t) {
  return at::empty(qkv.sizes(), qkv.options());
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, int64_t heads,
                            int64_t kv_heads, int64_t head_size) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [output, log_sums] = kernels::forward(qkv, heads, kv_heads, head_size);
    context->save_for_backward({qkv, output, log_sums});
    context->saved_data["shape"] = c10::List<int64_t>({heads, kv_heads, head_size});
    context->set_materialize_grads(false);
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (!grads[0].defined()) return {at::Tensor(), {}, {}, {}};
    const auto saved = context->get_saved_variables();
    const auto shape = context->saved_data["shape"].toIntVector();
    return {kernels::backward(grads[0], saved[0], saved[1], saved[2], shape[0], shape[1], shape[2]),
            {},
            {},
            {}};
  }
};

at::Tensor autograd(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_size) {
  if (needs_gradient(qkv)) return AttentionFunction::apply(qkv, heads, kv_heads, head_size);
  const at::AutoDispatchBelowADInplaceOrView below;
  return std::get<0>(forward(qkv, heads, kv_heads, head_size));
}

at::Tensor composite(const at::Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_size) {
  return std::get<0>(forward(qkv, heads, kv_heads, head_size));
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& qkv, int64_t heads, int64_t kv_heads,
                            int64_t head_size) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::causal_attention", "")
                       .typed<at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t)>();
  return op.call(qkv, heads, kv_heads, head_size);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("causal_attention(Tensor qkv, int heads, int kv_heads, int head_size) -> Tensor");
  m.def(
      "causal_attention_forward(Tensor qkv, int heads, int kv_heads, int head_size) -> (Tensor, "
      "Tensor)");
  m.def(
      "causal_attention_backward(Tensor grad, Tensor qkv, Tensor output, Tensor log_sums, int "
      "heads, int kv_heads, int head_size) -> Tensor");
}
TORCH_LIBRARY_IMPL(lehr, CompositeExplicitAutograd, m) { m.impl("causal_attention", composite); }
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("causal_attention_forward", forward_on_cpu);
  m.impl("causal_attention_backward", backward_on_cpu);
}
TORCH_LIBRARY_IMPL(lehr, Meta, m) {
  m.impl("causal_attention_forward", allocate);
  m.impl("causal_attention_backward", backward_on_meta);
}
// a gradient through the raw ops, or of the gradient, throws instead of being lost
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("causal_attention", autograd);
  m.impl("causal_attention_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("causal_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
