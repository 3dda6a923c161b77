// Shows cross_entropy to LibTorch: schema, checks, CPU and Meta, and the two losses, which make
// their gradients in the forward.
#include "kernels/cross_entropy/cross_entropy_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

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
      TORCH_CHECK(false, "cross_entropy: dtype must be float32, bfloat16 or float16, not ", type);
  }
}

void on_cpu(at::Tensor logits, const at::Tensor& targets, at::Tensor losses, double scale,
            double label_smoothing, double z_loss, int64_t vocabulary, bool gradient) {
  const CrossEntropy args = prepare_cross_entropy(logits, targets, losses, scale, label_smoothing,
                                                  z_loss, vocabulary, gradient);
  // before anything is overwritten
  for (int64_t r = 0; r < args.rows; ++r)
    TORCH_CHECK(args.targets[r] == kIgnoredTarget ||
                    (args.targets[r] >= 0 && args.targets[r] < args.vocabulary),
                "cross_entropy: target ", args.targets[r], " at row ", r, " is neither in [0, ",
                args.vocabulary, ") nor ", kIgnoredTarget);
  // about 16k elements a task: below that a thread costs more than it brings
  const int64_t grain = std::max<int64_t>(1, 16384 / args.stride);
  parallel_for(0, args.rows, grain, [&](int64_t begin, int64_t end) {
    CrossEntropy part = args;
    part.logits = static_cast<char*>(part.logits) + begin * part.stride * bytes_of(part.type);
    part.targets += begin;
    part.losses += begin;
    part.rows = end - begin;
    cross_entropy_cpu_simd(part);
  });
}

void on_meta(at::Tensor logits, const at::Tensor& targets, at::Tensor losses, double scale,
             double label_smoothing, double z_loss, int64_t vocabulary, bool gradient) {
  prepare_cross_entropy(logits, targets, losses, scale, label_smoothing, z_loss, vocabulary,
                        gradient);
}

// in the order of the rows on the CPU, so that threads change nothing; ATen's order on CUDA
at::Tensor total(const at::Tensor& losses) {
  if (!losses.is_cpu()) return losses.sum(at::kDouble).to(at::kFloat);
  double sum = 0;
  const float* loss = losses.const_data_ptr<float>();
  for (int64_t r = 0; r < losses.numel(); ++r) sum += loss[r];
  at::Tensor result = at::empty({}, losses.options());
  *result.mutable_data_ptr<float>() = static_cast<float>(sum);
  return result;
}

at::Tensor losses_for(const at::Tensor& targets) {
  return at::empty({targets.numel()}, targets.options().dtype(at::kFloat));
}

bool overwritable(const at::Tensor& logits) {
  return logits.is_contiguous() && !logits.is_leaf() &&
         !(logits.is_view() && logits._base().is_leaf());
}

// What the forward has made under these names, times the gradient that comes in, then `more`
// undefined ones. It is handed over, held by nobody else, so that autograd adds to it in place.
variable_list hand_over(AutogradContext* ctx, const at::Tensor& incoming,
                        std::initializer_list<const char*> names, size_t more) {
  TORCH_CHECK(!c10::GradMode::is_enabled(), "cross_entropy: there is no second derivative");
  const bool unit = incoming.is_cpu() && incoming.item<float>() == 1;
  variable_list made;
  for (const char* name : names) {
    TORCH_CHECK(ctx->saved_data.count(name),
                "cross_entropy: the backward was called twice, and its gradient exists once");
    made.push_back(ctx->saved_data[name].toTensor());
    ctx->saved_data.erase(name);
    if (made.back().defined() && !unit) made.back().mul_(incoming);
  }
  made.resize(made.size() + more);
  return made;
}

struct FromLogits : torch::autograd::Function<FromLogits> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits,
                            const at::Tensor& targets, const CrossEntropyOptions& options) {
    at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor gradient;
    if (overwritable(logits)) {
      logits.unsafeGetTensorImpl()->bump_version();
      gradient = logits.detach();
    } else {
      gradient = logits.detach().clone(at::MemoryFormat::Contiguous);
    }
    at::Tensor losses = losses_for(targets);
    cross_entropy_(gradient, targets, losses, 1, options, true);
    ctx->saved_data["gradient"] = gradient;
    return total(losses);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& incoming) {
    if (!incoming[0].defined()) return variable_list(3);
    return hand_over(ctx, incoming[0], {"gradient"}, 2);
  }
};

void add_part(const at::Tensor& sum, const at::Tensor& part) {
  if (!sum.is_cpu() || sum.scalar_type() != at::kFloat) {
    sum.add_(part);
    return;
  }
  float* into = sum.mutable_data_ptr<float>();
  const auto* from = static_cast<const char*>(part.const_data_ptr());
  const Float type = float_type(part.scalar_type());
  parallel_for(0, sum.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    add_part_cpu_simd(into + begin, from + begin * bytes_of(type), type, end - begin);
  });
}

// the sum; d_hidden [N, D] and d_weight [V, D] where they are defined
at::Tensor chunk_by_chunk(const at::Tensor& hidden, const at::Tensor& weight,
                          const at::Tensor& targets, const CrossEntropyOptions& options,
                          int64_t chunk_rows, at::Tensor d_hidden, at::Tensor d_weight) {
  const int64_t rows = targets.numel(), columns = weight.size(0);
  if (chunk_rows == 0)
    chunk_rows = cross_entropy_chunk_rows(columns, weight.size(1), float_type(hidden.scalar_type()),
                                          hidden.is_cpu());
  chunk_rows = std::min(chunk_rows, rows);
  const at::Tensor x = hidden.reshape({rows, hidden.size(-1)}).contiguous();
  const at::Tensor w = weight.to(x.scalar_type()).contiguous();
  const at::Tensor flat_targets = targets.reshape({rows});
  at::Tensor losses = losses_for(targets);
  at::Tensor buffer = at::empty({chunk_rows, columns}, x.options());
  // products of another dtype than weight's are added from here
  at::Tensor product;
  if (d_weight.defined() && d_weight.scalar_type() != x.scalar_type())
    product = at::empty_like(d_weight, x.options());

  if (rows == 0 && d_weight.defined()) d_weight.zero_();
  for (int64_t begin = 0; begin < rows; begin += chunk_rows) {
    const int64_t count = std::min(chunk_rows, rows - begin);
    const at::Tensor x_part = x.narrow(0, begin, count);
    at::Tensor logits = buffer.narrow(0, 0, count);
    at::mm_out(logits, x_part, w.t());
    cross_entropy_(logits, flat_targets.narrow(0, begin, count), losses.narrow(0, begin, count), 1,
                   options, d_hidden.defined() || d_weight.defined());
    if (d_hidden.defined()) {
      at::Tensor part = d_hidden.narrow(0, begin, count);
      at::mm_out(part, logits, w);
    }
    if (!d_weight.defined()) continue;
    at::Tensor& into = product.defined() ? product : d_weight;
    if (product.defined() || begin == 0)
      at::mm_out(into, logits.t(), x_part);
    else
      into.addmm_(logits.t(), x_part);
    if (!product.defined()) continue;
    if (begin == 0)
      d_weight.copy_(product);
    else
      add_part(d_weight, product);
  }
  return total(losses);
}

struct FromHidden : torch::autograd::Function<FromHidden> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& targets,
                            const CrossEntropyOptions& options, int64_t chunk_rows) {
    at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor d_hidden, d_weight;
    if (hidden.requires_grad())
      d_hidden = at::empty({targets.numel(), hidden.size(-1)}, hidden.options());
    if (weight.requires_grad()) d_weight = at::empty(weight.sizes(), weight.options());
    const at::Tensor sum = chunk_by_chunk(hidden.detach(), weight.detach(), targets, options,
                                          chunk_rows, d_hidden, d_weight);
    if (d_hidden.defined()) d_hidden = d_hidden.view(hidden.sizes());
    ctx->saved_data["d_hidden"] = d_hidden;
    ctx->saved_data["d_weight"] = d_weight;
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& incoming) {
    if (!incoming[0].defined()) return variable_list(5);
    return hand_over(ctx, incoming[0], {"d_hidden", "d_weight"}, 3);
  }
};

}  // namespace

// Each chunk reads all of the weight twice and reads and writes its gradient, so few are better:
// from 83 to 332 rows of 50,257 x 384 in float32 the products of 1,024 rows went from 1,003 to 794
// ms, to 727 in one chunk (2 cores of an AMD EPYC). On a CPU a chunk takes no more memory than the
// weight's gradient, which is there anyway, and 512 rows at most unless the rows are short. A GPU's
// products want thousands of rows.
int64_t cross_entropy_chunk_rows(int64_t vocabulary, int64_t width, Float type, bool on_cpu) {
  const int64_t bytes_a_row = vocabulary * bytes_of(type);
  if (!on_cpu) return std::max<int64_t>(1, (512 << 20) / bytes_a_row);
  const int64_t of_gradient = width * 4 / bytes_of(type);
  return std::max({int64_t{1}, (16 << 20) / bytes_a_row, std::min<int64_t>(512, of_gradient)});
}

CrossEntropy prepare_cross_entropy(const at::Tensor& logits, const at::Tensor& targets,
                                   const at::Tensor& losses, double scale, double label_smoothing,
                                   double z_loss, int64_t vocabulary, bool gradient) {
  const Float type = float_type(logits.scalar_type());
  TORCH_CHECK(logits.dim() >= 1 && logits.size(-1) >= 1,
              "cross_entropy: logits must be [..., V] with V >= 1, not ", logits.sizes());
  TORCH_CHECK(logits.is_contiguous(), "cross_entropy: logits must be contiguous");
  const int64_t stride = logits.size(-1), rows = logits.numel() / stride;
  TORCH_CHECK(targets.scalar_type() == at::kLong && targets.numel() == rows,
              "cross_entropy: targets must be int64, one for each of ", rows, " rows, not ",
              targets.scalar_type(), " ", targets.sizes());
  TORCH_CHECK(losses.scalar_type() == at::kFloat && losses.numel() == rows,
              "cross_entropy: losses must be float32, one for each of ", rows, " rows, not ",
              losses.scalar_type(), " ", losses.sizes());
  TORCH_CHECK(targets.is_contiguous() && losses.is_contiguous(),
              "cross_entropy: targets and losses must be contiguous");
  TORCH_CHECK(targets.device() == logits.device() && losses.device() == logits.device(),
              "cross_entropy: logits are on ", logits.device(), ", targets on ", targets.device(),
              " and losses on ", losses.device());
  TORCH_CHECK(vocabulary >= 0 && vocabulary <= stride, "cross_entropy: a vocabulary of ",
              vocabulary, " does not fit ", stride, " columns");
  TORCH_CHECK(label_smoothing >= 0 && label_smoothing <= 1,
              "cross_entropy: label_smoothing must be in [0, 1], not ", label_smoothing);
  TORCH_CHECK(std::isfinite(z_loss) && z_loss >= 0, "cross_entropy: z_loss must be 0 or more, not ",
              z_loss);
  CrossEntropy args{};
  if (!logits.is_meta()) {
    args.logits = gradient ? logits.mutable_data_ptr() : const_cast<void*>(logits.const_data_ptr());
    args.targets = targets.const_data_ptr<int64_t>();
    args.losses = losses.mutable_data_ptr<float>();
  }
  args.rows = rows;
  args.vocabulary = vocabulary == 0 ? stride : vocabulary;
  args.stride = stride;
  args.scale = static_cast<float>(scale);
  args.label_smoothing = static_cast<float>(label_smoothing);
  args.z_loss = static_cast<float>(z_loss);
  args.gradient = gradient;
  args.type = type;
  return args;
}

void cross_entropy_(at::Tensor logits, const at::Tensor& targets, at::Tensor losses, double scale,
                    const CrossEntropyOptions& options, bool gradient) {
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::cross_entropy_", "")
                       .typed<void(at::Tensor, const at::Tensor&, at::Tensor, double, double,
                                   double, int64_t, bool)>();
  op.call(std::move(logits), targets, std::move(losses), scale, options.label_smoothing,
          options.z_loss, options.vocabulary, gradient);
}

at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets,
                             const CrossEntropyOptions& options) {
  const at::Tensor flat = targets.contiguous();
  if (c10::GradMode::is_enabled() && logits.requires_grad())
    return FromLogits::apply(logits, flat, options);
  at::Tensor losses = losses_for(flat);
  at::AutoDispatchBelowADInplaceOrView below;
  cross_entropy_(logits.contiguous(), flat, losses, 1, options, false);
  return total(losses);
}

at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden, const at::Tensor& weight,
                                    const at::Tensor& targets, const CrossEntropyOptions& options,
                                    int64_t chunk_rows) {
  TORCH_CHECK(hidden.dim() >= 1 && weight.dim() == 2 && hidden.size(-1) == weight.size(1),
              "linear_cross_entropy: hidden must be [..., D] and weight [V, D], not ",
              hidden.sizes(), " and ", weight.sizes());
  TORCH_CHECK(weight.size(0) >= 1 && weight.size(1) >= 1, "linear_cross_entropy: weight is ",
              weight.sizes());
  TORCH_CHECK(targets.numel() * hidden.size(-1) == hidden.numel(),
              "linear_cross_entropy: hidden is ", hidden.sizes(), " and targets are ",
              targets.sizes());
  TORCH_CHECK(weight.scalar_type() == hidden.scalar_type() || weight.scalar_type() == at::kFloat,
              "linear_cross_entropy: weight must be float32 or hidden's ", hidden.scalar_type(),
              ", not ", weight.scalar_type());
  TORCH_CHECK(chunk_rows >= 0, "linear_cross_entropy: chunk_rows is ", chunk_rows);
  const at::Tensor flat = targets.contiguous();
  if (c10::GradMode::is_enabled() && (hidden.requires_grad() || weight.requires_grad()))
    return FromHidden::apply(hidden, weight, flat, options, chunk_rows);
  c10::NoGradGuard no_grad;
  return chunk_by_chunk(hidden, weight, flat, options, chunk_rows, {}, {});
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def(
      "cross_entropy_(Tensor(a!) logits, Tensor targets, Tensor(b!) losses, float scale, "
      "float label_smoothing, float z_loss, int vocabulary, bool gradient) -> ()");
}
TORCH_LIBRARY_IMPL(lehr, CPU, m) { m.impl("cross_entropy_", on_cpu); }
TORCH_LIBRARY_IMPL(lehr, Meta, m) { m.impl("cross_entropy_", on_meta); }
// differentiated by the functions above, never through the op
TORCH_LIBRARY_IMPL(lehr, Autograd, m) {
  m.impl("cross_entropy_", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace lehr::kernels
