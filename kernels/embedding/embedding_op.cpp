// Shows embedding and its backward to LibTorch: schemas, checks, CPU, Meta and Autograd.
#include "kernels/embedding/embedding_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "kernels/common/parallel.h"

namespace lehr::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Float float_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Float::kFloat32;
    case at::kBFloat16:
      return Float::kBFloat16;
    case at::kHalf:
      return Float::kFloat16;
    default:
      TORCH_CHECK(false, "embedding: dtype must be float32, bfloat16 or float16, not ", type);
  }
}

at::Tensor call_embedding(const at::Tensor& weight, const std::optional<at::Tensor>& positions,
                          const at::Tensor& ids) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::embedding", "")
                       .typed<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&,
                                         const at::Tensor&)>();
  return op.call(weight, positions, ids);
}

at::Tensor call_backward(const at::Tensor& gradient, const std::optional<at::Tensor>& ids,
                         int64_t rows) {
  static auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lehr::embedding_backward", "")
          .typed<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&, int64_t)>();
  return op.call(gradient, ids, rows);
}

// about 32k elements a task: below that a thread costs more than it brings
int64_t grain(int64_t width) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width)); }

at::Tensor on_cpu(const at::Tensor& weight, const std::optional<at::Tensor>& positions,
                  const at::Tensor& ids) {
  const EmbeddingCall call = prepare_embedding(weight, positions, ids);
  const Embedding& args = call.args;
  for (int64_t i = 0; i < args.tokens; ++i)
    TORCH_CHECK(args.ids[i] >= 0 && args.ids[i] < args.vocabulary, "embedding: id ", args.ids[i],
                " at token ", i, " is not in [0, ", args.vocabulary, ")");
  parallel_for(0, args.tokens, grain(args.width),
               [&](int64_t begin, int64_t end) { embedding_cpu_simd(args, begin, end); });
  return call.output;
}

at::Tensor on_meta(const at::Tensor& weight, const std::optional<at::Tensor>& positions,
                   const at::Tensor& ids) {
  return prepare_embedding(weight, positions, ids).output;
}

// ids ascending, equal ones in the order of the batch, and where each came from
void sort_ids(const int64_t* ids, int64_t tokens, int64_t rows, std::vector<int64_t>* sorted,
              std::vector<int64_t>* order) {
  sorted->resize(static_cast<size_t>(tokens));
  order->resize(static_cast<size_t>(tokens));
  // by counting, unless the counts would outnumber the tokens by far
  if (rows <= 16 * tokens + 1024) {
    std::vector<int64_t> next(static_cast<size_t>(rows) + 1);
    for (int64_t i = 0; i < tokens; ++i) ++next[static_cast<size_t>(ids[i]) + 1];
    for (size_t r = 1; r < next.size(); ++r) next[r] += next[r - 1];
    for (int64_t i = 0; i < tokens; ++i) {
      const auto place = static_cast<size_t>(next[static_cast<size_t>(ids[i])]++);
      (*sorted)[place] = ids[i];
      (*order)[place] = i;
    }
    return;
  }
  std::vector<std::pair<int64_t, int64_t>> pairs;
  pairs.reserve(static_cast<size_t>(tokens));
  for (int64_t i = 0; i < tokens; ++i) pairs.emplace_back(ids[i], i);
  std::sort(pairs.begin(), pairs.end());
  for (size_t i = 0; i < pairs.size(); ++i)
    (*sorted)[i] = pairs[i].first, (*order)[i] = pairs[i].second;
}

at::Tensor backward_on_cpu(const at::Tensor& gradient, const std::optional<at::Tensor>& ids,
                           int64_t rows) {
  EmbeddingGradientCall call = prepare_embedding_gradient(gradient, ids, rows);
  EmbeddingGradient& args = call.args;
  std::vector<int64_t> sorted, order;
  if (call.ids.defined()) {
    const int64_t* values = call.ids.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < args.tokens; ++i)
      TORCH_CHECK(values[i] >= 0 && values[i] < rows, "embedding_backward: id ", values[i],
                  " is not in [0, ", rows, ")");
    sort_ids(values, args.tokens, rows, &sorted, &order);
    args.sorted_ids = sorted.data();
    args.order = order.data();
  }
  parallel_for(0, args.tokens, grain(args.width),
               [&](int64_t begin, int64_t end) { embedding_gradient_cpu_simd(args, begin, end); });
  return call.result;
}

at::Tensor backward_on_meta(const at::Tensor& gradient, const std::optional<at::Tensor>& ids,
                            int64_t rows) {
  return prepare_embedding_gradient(gradient, ids, rows).result;
}

struct Differentiable : torch::autograd::Function<Differentiable> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight,
                            const std::optional<at::Tensor>& positions, const at::Tensor& ids) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({ids});
    ctx->saved_data["rows"] = weight.size(0);
    ctx->saved_data["positions"] = positions ? positions->size(0) : int64_t{0};
    return call_embedding(weight, positions, ids);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& incoming) {
    variable_list gradients(3);
    if (!incoming[0].defined()) return gradients;
    TORCH_CHECK(!c10::GradMode::is_enabled(), "embedding: there is no second derivative");
    const int64_t positions = ctx->saved_data["positions"].toInt();
    if (ctx->needs_input_grad(0))
      gradients[0] = call_backward(incoming[0], ctx->get_saved_variables()[0],
                                   ctx->saved_data["rows"].toInt());
    if (positions > 0 && ctx->needs_input_grad(1))
      gradients[1] = call_backward(incoming[0], std::nullopt, positions);
    return gradients;
  }
};

at::Tensor on_autograd(const at::Tensor& weight, const std::optional<at::Tensor>& positions,
                       const at::Tensor& ids) {
  return Differentiable::apply(weight, positions, ids);
}

}  // namespace

EmbeddingCall prepare_embedding(const at::Tensor& weight,
                                const std::optional<at::Tensor>& positions, const at::Tensor& ids) {
  EmbeddingCall call;
  call.args = {};
  call.args.type = float_type(weight.scalar_type());
  TORCH_CHECK(weight.dim() == 2, "embedding: weight must be [V, D], not ", weight.sizes());
  TORCH_CHECK(ids.scalar_type() == at::kLong, "embedding: ids must be int64, not ",
              ids.scalar_type());
  TORCH_CHECK(ids.device() == weight.device(), "embedding: weight is on ", weight.device(),
              " and ids on ", ids.device());
  call.args.tokens = ids.numel();
  call.args.vocabulary = weight.size(0);
  call.args.width = weight.size(1);
  call.weight = weight.contiguous();
  call.ids = ids.contiguous();
  if (positions.has_value() && positions->defined()) {
    TORCH_CHECK(ids.dim() >= 1, "embedding: ids with positions must be [..., T], not ",
                ids.sizes());
    call.args.length = ids.size(-1);
    TORCH_CHECK(positions->dim() == 2 && positions->size(1) == weight.size(1) &&
                    positions->size(0) >= call.args.length,
                "embedding: positions must be [at least ", call.args.length, ", ", weight.size(1),
                "], not ", positions->sizes());
    TORCH_CHECK(
        positions->scalar_type() == weight.scalar_type() && positions->device() == weight.device(),
        "embedding: positions must have weight's dtype and device");
    call.positions = positions->contiguous();
  }
  auto shape = ids.sizes().vec();
  shape.push_back(weight.size(1));
  call.output = at::empty(shape, weight.options());
  if (weight.is_meta()) return call;
  call.args.weight = call.weight.const_data_ptr();
  if (call.positions.defined()) call.args.positions = call.positions.const_data_ptr();
  call.args.ids = call.ids.const_data_ptr<int64_t>();
  call.args.output = call.output.mutable_data_ptr();
  return call;
}

EmbeddingGradientCall prepare_embedding_gradient(const at::Tensor& gradient,
                                                 const std::optional<at::Tensor>& ids,
                                                 int64_t rows) {
  EmbeddingGradientCall call;
  call.args = {};
  call.args.type = float_type(gradient.scalar_type());
  TORCH_CHECK(gradient.dim() >= 1 && rows >= 0, "embedding_backward: gradient is ",
              gradient.sizes(), " for ", rows, " rows");
  const int64_t width = gradient.size(-1);
  call.args.width = width;
  call.args.rows = rows;
  call.gradient = gradient.contiguous();
  if (ids.has_value() && ids->defined()) {
    TORCH_CHECK(ids->scalar_type() == at::kLong && ids->numel() * width == gradient.numel() &&
                    ids->device() == gradient.device(),
                "embedding_backward: ids must be int64, one for each row of ", gradient.sizes(),
                " and on ", gradient.device());
    call.args.tokens = ids->numel();
    call.ids = ids->contiguous();
  } else {
    TORCH_CHECK(gradient.dim() >= 2 && gradient.size(-2) <= rows, "embedding_backward: gradient ",
                gradient.sizes(), " does not fit ", rows, " positions");
    call.args.length = gradient.size(-2);
    call.args.tokens = width == 0 ? 0 : gradient.numel() / width;
  }
  call.result = at::zeros({rows, width}, gradient.options());
  if (gradient.is_meta()) return call;
  call.args.gradient = call.gradient.const_data_ptr();
  call.args.result = call.result.mutable_data_ptr();
  return call;
}

at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids) {
  return call_embedding(weight, std::nullopt, ids);
}

at::Tensor embedding_add(const at::Tensor& weight, const at::Tensor& positions,
                         const at::Tensor& ids) {
  TORCH_CHECK(positions.defined(), "embedding: positions are undefined");
  return call_embedding(weight, positions, ids);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def("embedding(Tensor weight, Tensor? positions, Tensor ids) -> Tensor");
  m.def("embedding_backward(Tensor gradient, Tensor? ids, int rows) -> Tensor");
}
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("embedding", on_cpu);
  m.impl("embedding_backward", backward_on_cpu);
}
TORCH_LIBRARY_IMPL(lehr, Meta, m) {
  m.impl("embedding", on_meta);
  m.impl("embedding_backward", backward_on_meta);
}
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("embedding", on_autograd);
  m.impl("embedding_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
