// Shows adamw and global_norm to LibTorch: schemas, checks, CPU and Meta. Neither has a gradient.
#include "kernels/adamw/adamw_op.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "kernels/common/parallel.h"

namespace lehr::kernels {
namespace {

constexpr const char* kWhere = "adamw: ";

Float float_type(at::ScalarType type, const char* what) {
  switch (type) {
    case at::kFloat:
      return Float::kFloat32;
    case at::kBFloat16:
      return Float::kBFloat16;
    case at::kHalf:
      return Float::kFloat16;
    default:
      TORCH_CHECK(false, kWhere, what, " must be float32, bfloat16 or float16, not ", type);
  }
}

template <class T>
T* pointer(const at::Tensor& tensor) {
  return tensor.is_meta() ? nullptr : static_cast<T*>(tensor.mutable_data_ptr());
}

bool wide(const void* pointer, Float type) {
  return reinterpret_cast<uintptr_t>(pointer) % (4 * bytes_of(type)) == 0;
}

// chunks, partial sums and the place of the norm, for a table whose counts are filled in
void lay_out(AdamWCall* call, const at::TensorOptions& device) {
  int64_t chunks = 0;
  for (AdamWTensor& row : call->table) {
    row.first_chunk = chunks;
    chunks += (row.count + kAdamWChunk - 1) / kAdamWChunk;
  }
  const auto doubles = device.dtype(at::kDouble);
  call->partials = at::empty({chunks}, doubles);
  call->norm = chunks == 0 ? at::zeros({}, doubles) : at::empty({}, doubles);
  call->args.tensors = call->table.data();
  call->args.tensor_count = static_cast<int64_t>(call->table.size());
  call->args.chunks = chunks;
  call->args.partials = pointer<double>(call->partials);
  call->args.norm = pointer<double>(call->norm);
}

// about 32k elements a task: below that a thread costs more than it brings
constexpr int64_t kGrain = 2;

void squares_on_cpu(const AdamW& args) {
  parallel_for(0, args.chunks, kGrain,
               [&](int64_t begin, int64_t end) { adamw_squares_cpu_simd(args, begin, end); });
}

at::Tensor step_on_cpu(at::TensorList parameters, at::TensorList gradients, at::TensorList exp_avg,
                       at::TensorList exp_avg_sq, at::TensorList copies, at::TensorList averages,
                       at::ArrayRef<double> lr, at::ArrayRef<double> weight_decay, double beta1,
                       double beta2, double eps, int64_t step, double divide, double max_norm,
                       double ema_decay, std::optional<double> known) {
  const AdamWCall call =
      prepare_adamw(parameters, gradients, exp_avg, exp_avg_sq, copies, averages, lr, weight_decay,
                    beta1, beta2, eps, step, divide, max_norm, ema_decay, known);
  const AdamW& args = call.args;
  if (!args.has_norm) squares_on_cpu(args);
  const double norm = args.has_norm ? args.known : adamw_norm(args);
  *args.norm = norm;
  if (!std::isfinite(norm)) return call.norm;
  const float factor = adamw_factor(args, norm);
  parallel_for(0, args.chunks, kGrain, [&](int64_t begin, int64_t end) {
    adamw_update_cpu_simd(args, factor, begin, end);
  });
  return call.norm;
}

at::Tensor step_on_meta(at::TensorList parameters, at::TensorList gradients, at::TensorList exp_avg,
                        at::TensorList exp_avg_sq, at::TensorList copies, at::TensorList averages,
                        at::ArrayRef<double> lr, at::ArrayRef<double> weight_decay, double beta1,
                        double beta2, double eps, int64_t step, double divide, double max_norm,
                        double ema_decay, std::optional<double> known) {
  return prepare_adamw(parameters, gradients, exp_avg, exp_avg_sq, copies, averages, lr,
                       weight_decay, beta1, beta2, eps, step, divide, max_norm, ema_decay, known)
      .norm;
}

at::Tensor norm_on_cpu(at::TensorList tensors) {
  const AdamWCall call = prepare_global_norm(tensors);
  squares_on_cpu(call.args);
  *call.args.norm = adamw_norm(call.args);
  return call.norm;
}

at::Tensor norm_on_meta(at::TensorList tensors) { return prepare_global_norm(tensors).norm; }

}  // namespace

AdamWCall prepare_adamw(at::TensorList parameters, at::TensorList gradients, at::TensorList exp_avg,
                        at::TensorList exp_avg_sq, at::TensorList copies, at::TensorList averages,
                        at::ArrayRef<double> lr, at::ArrayRef<double> weight_decay, double beta1,
                        double beta2, double eps, int64_t step, double divide, double max_norm,
                        double ema_decay, std::optional<double> norm) {
  const size_t n = parameters.size();
  TORCH_CHECK(n >= 1, kWhere, "there are no parameters");
  TORCH_CHECK(gradients.size() == n && exp_avg.size() == n && exp_avg_sq.size() == n &&
                  lr.size() == n && weight_decay.size() == n,
              kWhere, "lists of different lengths for ", n, " parameters");
  TORCH_CHECK((copies.empty() || copies.size() == n) && (averages.empty() || averages.size() == n),
              kWhere, "copies and averages must be none, or one for each of ", n, " parameters");
  TORCH_CHECK(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, kWhere,
              "betas must be in [0, 1), not ", beta1, " and ", beta2);
  TORCH_CHECK(step >= 1, kWhere, "step counts from 1, not from ", step);
  TORCH_CHECK(std::isfinite(divide) && divide > 0, kWhere, "divide must be positive, not ", divide);
  TORCH_CHECK(max_norm >= 0, kWhere, "max_norm must be 0 (no clipping) or more, not ", max_norm);

  const at::Device device = parameters[0].device();
  AdamWCall call;
  call.args = {};
  call.table.reserve(n);
  call.gradients.reserve(n);
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(step));
  for (size_t i = 0; i < n; ++i) {
    const at::Tensor& p = parameters[i];
    TORCH_CHECK(p.scalar_type() == at::kFloat && p.is_non_overlapping_and_dense(), kWhere,
                "parameter ", i, " must be dense float32, not ", p.scalar_type(), " of strides ",
                p.strides());
    AdamWTensor row{};
    row.wide = true;
    const auto take = [&](const at::Tensor& t, const char* what, bool any_float) {
      TORCH_CHECK(t.sizes() == p.sizes() && t.strides() == p.strides(), kWhere, what, " ", i,
                  " has shape ", t.sizes(), " and strides ", t.strides(), ", its parameter ",
                  p.sizes(), " and ", p.strides());
      TORCH_CHECK(t.device() == device, kWhere, what, " ", i, " is on ", t.device(), " and not on ",
                  device);
      TORCH_CHECK(any_float || t.scalar_type() == at::kFloat, kWhere, what, " ", i,
                  " must be float32, not ", t.scalar_type());
      row.wide = row.wide && wide(pointer<void>(t), float_type(t.scalar_type(), what));
      return pointer<void>(t);
    };
    at::Tensor gradient = gradients[i];
    TORCH_CHECK(gradient.defined() && gradient.sizes() == p.sizes(), kWhere, "gradient ", i,
                " has another shape than its parameter ", p.sizes());
    if (gradient.strides() != p.strides())
      gradient = at::empty_like(p, gradient.options()).copy_(gradient);
    row.parameter = static_cast<float*>(take(p, "parameter", false));
    row.gradient = take(gradient, "gradient", true);
    row.gradient_type = float_type(gradient.scalar_type(), "gradients");
    row.exp_avg = static_cast<float*>(take(exp_avg[i], "exp_avg", false));
    row.exp_avg_sq = static_cast<float*>(take(exp_avg_sq[i], "exp_avg_sq", false));
    if (!copies.empty() && copies[i].defined()) {
      row.copy = take(copies[i], "copy", true);
      row.copy_type = float_type(copies[i].scalar_type(), "copies");
    }
    if (!averages.empty() && averages[i].defined())
      row.average = static_cast<float*>(take(averages[i], "average", false));
    row.count = p.numel();
    row.decay = static_cast<float>(1 - lr[i] * weight_decay[i]);
    row.step_size = static_cast<float>(lr[i] / correction1);
    call.gradients.push_back(gradient);
    call.table.push_back(row);
  }
  lay_out(&call, parameters[0].options());
  AdamW& args = call.args;
  args.one_minus_beta1 = static_cast<float>(1 - beta1);
  args.beta2 = static_cast<float>(beta2);
  args.one_minus_beta2 = static_cast<float>(1 - beta2);
  args.root = static_cast<float>(std::sqrt(1 - std::pow(beta2, static_cast<double>(step))));
  args.eps = static_cast<float>(eps);
  args.one_minus_ema = static_cast<float>(1 - ema_decay);
  args.divide = divide;
  args.max_norm = max_norm > 0 ? max_norm : std::numeric_limits<double>::infinity();
  args.has_norm = norm.has_value();
  args.known = norm.value_or(0);
  return call;
}

AdamWCall prepare_global_norm(at::TensorList tensors) {
  TORCH_CHECK(!tensors.empty(), "global_norm: there are no tensors");
  AdamWCall call;
  call.args = {};
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK(tensor.device() == tensors[0].device(), "global_norm: tensors on ", tensor.device(),
                " and on ", tensors[0].device());
    const at::Tensor dense = tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
    AdamWTensor row{};
    row.gradient = dense.is_meta() ? nullptr : dense.const_data_ptr();
    row.gradient_type = float_type(dense.scalar_type(), "gradients");
    row.count = dense.numel();
    row.wide = wide(row.gradient, row.gradient_type);
    call.gradients.push_back(dense);
    call.table.push_back(row);
  }
  lay_out(&call, tensors[0].options());
  call.args.divide = 1;
  return call;
}

at::Tensor adamw_step(const std::vector<AdamWGroup>& groups, const AdamWOptions& o) {
  std::vector<at::Tensor> parameters, gradients, exp_avg, exp_avg_sq, copies, averages;
  std::vector<double> lr, weight_decay;
  for (const AdamWGroup& group : groups) {
    const size_t n = group.parameters.size();
    TORCH_CHECK(
        group.gradients.size() == n && group.exp_avg.size() == n && group.exp_avg_sq.size() == n,
        kWhere, "lists of different lengths for ", n, " parameters");
    TORCH_CHECK((group.copies.empty() || group.copies.size() == n) &&
                    (group.averages.empty() || group.averages.size() == n),
                kWhere, "copies and averages must be none, or one for each of ", n, " parameters");
    for (size_t i = 0; i < n; ++i) {
      if (!group.gradients[i].defined()) continue;
      // autograd refuses a graph that still needs the old weights
      group.parameters[i].unsafeGetTensorImpl()->bump_version();
      parameters.push_back(group.parameters[i]);
      gradients.push_back(group.gradients[i]);
      exp_avg.push_back(group.exp_avg[i]);
      exp_avg_sq.push_back(group.exp_avg_sq[i]);
      copies.push_back(group.copies.empty() ? at::Tensor() : group.copies[i]);
      averages.push_back(group.averages.empty() ? at::Tensor() : group.averages[i]);
      lr.push_back(group.lr);
      weight_decay.push_back(group.weight_decay);
    }
  }
  if (parameters.empty()) return at::zeros({}, at::kDouble);
  static auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lehr::adamw_", "")
          .typed<at::Tensor(at::TensorList, at::TensorList, at::TensorList, at::TensorList,
                            at::TensorList, at::TensorList, at::ArrayRef<double>,
                            at::ArrayRef<double>, double, double, double, int64_t, double, double,
                            double, std::optional<double>)>();
  at::NoGradGuard no_grad;
  at::AutoDispatchBelowADInplaceOrView below;
  return op.call(parameters, gradients, exp_avg, exp_avg_sq, copies, averages, lr, weight_decay,
                 o.beta1, o.beta2, o.eps, o.step, o.divide, o.max_norm, o.ema_decay, o.norm);
}

at::Tensor global_norm(const std::vector<at::Tensor>& tensors) {
  if (tensors.empty()) return at::zeros({}, at::kDouble);
  static auto op = c10::Dispatcher::singleton()
                       .findSchemaOrThrow("lehr::global_norm", "")
                       .typed<at::Tensor(at::TensorList)>();
  at::NoGradGuard no_grad;
  at::AutoDispatchBelowADInplaceOrView below;
  return op.call(tensors);
}

TORCH_LIBRARY_FRAGMENT(lehr, m) {
  m.def(
      "adamw_(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] exp_avg, "
      "Tensor(c!)[] exp_avg_sq, Tensor(d!)[] copies, Tensor(e!)[] averages, float[] lr, "
      "float[] weight_decay, float beta1, float beta2, float eps, int step, float divide, "
      "float max_norm, float ema_decay, float? norm) -> Tensor");
  m.def("global_norm(Tensor[] tensors) -> Tensor");
}
TORCH_LIBRARY_IMPL(lehr, CPU, m) {
  m.impl("adamw_", step_on_cpu);
  m.impl("global_norm", norm_on_cpu);
}
TORCH_LIBRARY_IMPL(lehr, Meta, m) {
  m.impl("adamw_", step_on_meta);
  m.impl("global_norm", norm_on_meta);
}

}  // namespace lehr::kernels
