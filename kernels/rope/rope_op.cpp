// Shows RoPE to LibTorch: schemas, checks, CPU, Meta and Autograd. lehr::rope is made of
// lehr::rope_turn (out of place) and lehr::rope_ (in place), which each device implements.
#include "kernels/rope/rope_op.h"

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

at::Tensor turn(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                int64_t head_dim, bool inverse) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::rope_turn", "")
                       .typed<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                                         int64_t, bool)>();
  return op.call(qkv, cos_sin, heads, kv_heads, head_dim, inverse);
}

void run_on_cpu(const Rope& args) {
  parallel_for(0, args.rows, rows_a_task((args.heads + args.kept_heads) * args.head_dim),
               [&](int64_t begin, int64_t end) { rope_cpu_simd(args, begin, end); });
}

at::Tensor turn_on_cpu(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                       int64_t kv_heads, int64_t head_dim, bool inverse) {
  const RopeCall call = prepare_rope(qkv, cos_sin, heads, kv_heads, head_dim, inverse, false);
  run_on_cpu(call.args);
  return call.output;
}

at::Tensor& turn_in_place_on_cpu(at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                                 int64_t kv_heads, int64_t head_dim, bool inverse) {
  run_on_cpu(prepare_rope(qkv, cos_sin, heads, kv_heads, head_dim, inverse, true).args);
  return qkv;
}

at::Tensor turn_on_meta(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                        int64_t kv_heads, int64_t head_dim, bool inverse) {
  return prepare_rope(qkv, cos_sin, heads, kv_heads, head_dim, inverse, false).output;
}

at::Tensor& turn_in_place_on_meta(at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                                  int64_t kv_heads, int64_t head_dim, bool inverse) {
  prepare_rope(qkv, cos_sin, heads, kv_heads, head_dim, inverse, true);
  return qkv;
}

// Nobody but the backward that received it can see this gradient or its memory.
bool owned(const at::Tensor& grad) {
  return grad.use_count() == 1 && grad.storage().use_count() == 1 && grad.is_contiguous() &&
         !grad.requires_grad() && !at::GradMode::is_enabled();
}

class RopeFunction : public torch::autograd::Function<RopeFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv,
                            const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                            int64_t head_dim) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({cos_sin});
    context->saved_data["heads"] = heads;
    context->saved_data["kv_heads"] = kv_heads;
    context->saved_data["head_dim"] = head_dim;
    context->set_materialize_grads(false);
    return turn(qkv, cos_sin, heads, kv_heads, head_dim, false);
  }

  // by reference: a copy of the list would count as another owner
  static variable_list backward(AutogradContext* context, variable_list& grads) {
    at::Tensor& grad = grads[0];
    if (!grad.defined()) return {{}, {}, {}, {}, {}};
    const at::Tensor cos_sin = context->get_saved_variables()[0];
    const int64_t heads = context->saved_data["heads"].toInt();
    const int64_t kv_heads = context->saved_data["kv_heads"].toInt();
    const int64_t head_dim = context->saved_data["head_dim"].toInt();
    if (owned(grad)) return {rope_(grad, cos_sin, heads, kv_heads, head_dim, true), {}, {}, {}, {}};
    return {turn(grad, cos_sin, heads, kv_heads, head_dim, true), {}, {}, {}, {}};
  }
};

at::Tensor rope_autograd(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                         int64_t kv_heads, int64_t head_dim) {
  if (needs_gradient(qkv)) return RopeFunction::apply(qkv, cos_sin, heads, kv_heads, head_dim);
  const at::AutoDispatchBelowADInplaceOrView below;
  return turn(qkv, cos_sin, heads, kv_heads, head_dim, false);
}

at::Tensor& rope_in_place_autograd(at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                                   int64_t kv_heads, int64_t head_dim, bool inverse) {
  TORCH_CHECK(!needs_gradient(qkv), "rope_: qkv needs a gradient; rope has one");
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    rope_(qkv, cos_sin, heads, kv_heads, head_dim, inverse);
  }
  if (!qkv.is_inference()) qkv.unsafeGetTensorImpl()->bump_version();
  return qkv;
}

// below autograd: inference mode, and what the guard above leaves
at::Tensor rope_composite(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                          int64_t kv_heads, int64_t head_dim) {
  return turn(qkv, cos_sin, heads, kv_heads, head_dim, false);
}

}  // namespace

RopeCall prepare_rope(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                      int64_t kv_heads, int64_t head_dim, bool inverse, bool in_place) {
  const char* op = in_place ? "rope_" : "rope";
  const Float type = float_type_of(qkv, op, "qkv");
  TORCH_CHECK(heads >= 1 && kv_heads >= 1 && head_dim >= 2 && head_dim % 2 == 0, op, ": heads ",
              heads, ", kv_heads ", kv_heads, " and an even head_dim ", head_dim,
              " must be at least 1, 1 and 2");
  const int64_t columns = (heads + 2 * kv_heads) * head_dim;
  TORCH_CHECK(columns <= INT32_MAX, op, ": a row of ", columns, " elements is too long");
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) == columns, op, ": qkv must be [B, T, ", columns,
              "], not ", qkv.sizes());
  TORCH_CHECK(cos_sin.scalar_type() == at::kFloat && cos_sin.dim() == 2 &&
                  cos_sin.size(0) == qkv.size(1) && cos_sin.size(1) == head_dim,
              op, ": cos_sin must be float32 [", qkv.size(1), ", ", head_dim, "], not ",
              cos_sin.scalar_type(), " ", cos_sin.sizes());
  TORCH_CHECK(cos_sin.device() == qkv.device(), op, ": cos_sin is on ", cos_sin.device(),
              " and qkv on ", qkv.device());
  TORCH_CHECK(!in_place || qkv.is_contiguous(), op, ": qkv must be contiguous");

  RopeCall call;
  call.qkv = qkv.contiguous();
  call.cos_sin = cos_sin.contiguous();
  call.output = in_place ? call.qkv : at::empty(qkv.sizes(), qkv.options());
  if (qkv.is_meta()) return call;
  call.args = {call.qkv.const_data_ptr(),
               call.output.mutable_data_ptr(),
               call.cos_sin.const_data_ptr<float>(),
               qkv.size(0) * qkv.size(1),
               std::max<int64_t>(1, qkv.size(1)),
               heads + kv_heads,
               kv_heads,
               head_dim,
               inverse,
               type};
  return call;
}

at::Tensor rope(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                int64_t head_dim) {
  static auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lehr::rope", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, int64_t, int64_t)>();
  return op.call(qkv, cos_sin, heads, kv_heads, head_dim);
}

at::Tensor& rope_(at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                  int64_t head_dim, bool inverse) {
  static auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lehr::rope_", "")
          .typed<at::Tensor&(at::Tensor&, const at::Tensor&, int64_t, int64_t, int64_t, bool)>();
  return op.call(qkv, cos_sin, heads, kv_heads, head_dim, inverse);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("rope(Tensor qkv, Tensor cos_sin, int heads, int kv_heads, int head_dim) -> Tensor");
  m.def(
      "rope_(Tensor(a!) qkv, Tensor cos_sin, int heads, int kv_heads, int head_dim, bool inverse)"
      " -> Tensor(a!)");
  m.def(
      "rope_turn(Tensor qkv, Tensor cos_sin, int heads, int kv_heads, int head_dim, bool inverse)"
      " -> Tensor");
}
TORCH_LIBRARY_IMPL(lehr, CompositeExplicitAutograd, m) { m.impl("rope", rope_composite); }
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("rope_turn", turn_on_cpu);
  m.impl("rope_", turn_in_place_on_cpu);
}
TORCH_LIBRARY_IMPL(lehr, Meta, m) {
  m.impl("rope_turn", turn_on_meta);
  m.impl("rope_", turn_in_place_on_meta);
}
// a gradient through the raw op, or of the gradient, throws instead of being lost
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("rope", rope_autograd);
  m.impl("rope_", rope_in_place_autograd);
  m.impl("rope_turn", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
