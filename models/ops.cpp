#include "models/ops.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <mutex>

#include "engine/base/error.h"
#include "kernels/embedding/embedding_op.h"
#include "kernels/gelu/gelu_op.h"
#include "kernels/layer_norm/layer_norm_op.h"
#include "kernels/linear/linear_op.h"
#include "kernels/rms_norm/rms_norm_op.h"
#include "kernels/rope/rope_op.h"
#include "kernels/swiglu/swiglu_op.h"
#include "models/products.h"

namespace lehr::models {
namespace {

thread_local Kernels in_use = Kernels::kAten;

std::mutex mutex;
std::map<std::string, double>& differences() {
  static std::map<std::string, double> map;
  return map;
}

// Whether Lehr's kernel runs.
bool custom(const at::Tensor& x) {
  if (in_use == Kernels::kAten || x.is_meta()) return false;
  const auto type = x.scalar_type();
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

// ATen's ops want weights of the type of x. Autocast sees to that itself, and where they are of one
// type a trace sees nothing of this.
at::Tensor like(const at::Tensor& x, const at::Tensor& weight) {
  if (weight.scalar_type() == x.scalar_type() || autocasts(x)) return weight;
  return weight.to(x.scalar_type());
}

}  // namespace

Kernels kernels_of(const std::string& name, const at::Device& device) {
  if (name == "auto") return device.is_cpu() ? Kernels::kCustom : Kernels::kAten;
  static const std::map<std::string, Kernels> names = {
      {"aten", Kernels::kAten}, {"custom", Kernels::kCustom}, {"check", Kernels::kCheck}};
  auto found = names.find(name);
  if (found == names.end())
    throw Error(Code::kInternal, fmt::format("no kernels are called `{}`", name));
  return found->second;
}

Kernels kernels_in_use() { return in_use; }

KernelScope::KernelScope(Kernels kernels) : before_(in_use) { in_use = kernels; }
KernelScope::~KernelScope() { in_use = before_; }

std::map<std::string, double> kernel_differences() {
  const std::lock_guard lock(mutex);
  return differences();
}

void compare_kernel(const char* op, const at::Tensor& ours,
                    const std::function<at::Tensor()>& reference) {
  if (in_use != Kernels::kCheck) return;
  c10::NoGradGuard no_grad;
  const KernelScope aten(Kernels::kAten);
  const at::Tensor theirs = reference().to(at::kFloat);
  const double largest = theirs.abs().max().item<double>();
  const double gap = (ours.to(at::kFloat) - theirs).abs().max().item<double>();
  const std::lock_guard lock(mutex);
  double& kept = differences()[op];
  kept = std::max(kept, gap / std::max(largest, 1e-30));
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
  if (!custom(x)) return at::layer_norm(x, weight.sizes(), like(x, weight), like(x, bias), eps);
  at::Tensor y = kernels::layer_norm(x, weight, bias, eps);
  compare_kernel("layer_norm", y, [&] { return layer_norm(x, weight, bias, eps); });
  return y;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!custom(x)) return at::rms_norm(x, weight.sizes(), like(x, weight), eps);
  at::Tensor y = kernels::rms_norm(x, weight, eps);
  compare_kernel("rms_norm", y, [&] { return rms_norm(x, weight, eps); });
  return y;
}

std::pair<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& branch,
                                                 const at::Tensor& weight, const at::Tensor& bias,
                                                 double eps) {
  if (!branch.defined()) return {layer_norm(x, weight, bias, eps), x};
  if (!custom(x)) {
    const at::Tensor sum = x + branch;
    return {layer_norm(sum, weight, bias, eps), sum};
  }
  auto [y, sum] = kernels::add_layer_norm(x, branch.to(x.scalar_type()), weight, bias, eps);
  compare_kernel("add_layer_norm", y, [&] { return layer_norm(x + branch, weight, bias, eps); });
  return {y, sum};
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& branch,
                                               const at::Tensor& weight, double eps) {
  if (!branch.defined()) return {rms_norm(x, weight, eps), x};
  if (!custom(x)) {
    const at::Tensor sum = x + branch;
    return {rms_norm(sum, weight, eps), sum};
  }
  auto [y, sum] = kernels::add_rms_norm(x, branch.to(x.scalar_type()), weight, eps);
  compare_kernel("add_rms_norm", y, [&] { return rms_norm(x + branch, weight, eps); });
  return {y, sum};
}

at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias) {
  if (!custom(x)) return at::gelu(x + like(x, bias), "tanh");
  at::Tensor y = kernels::bias_gelu(x, bias);
  compare_kernel("bias_gelu", y, [&] { return bias_gelu(x, bias); });
  return y;
}

at::Tensor linear_gelu_linear(const at::Tensor& x, const at::Tensor& weight_1,
                              const at::Tensor& bias_1, const at::Tensor& weight_2,
                              const at::Tensor& bias_2) {
  if (!products_are_custom(x, weight_1))
    return models::linear(bias_gelu(models::linear(x, weight_1), bias_1), weight_2, bias_2);
  const auto type = product_type(weight_1);
  at::Tensor y = kernels::linear_gelu_linear(x.to(type), weight_1.to(type), bias_1.to(type),
                                             weight_2.to(type), bias_2.to(type));
  compare_kernel("linear_gelu_linear", y,
                 [&] { return linear_gelu_linear(x, weight_1, bias_1, weight_2, bias_2); });
  return y;
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  if (!custom(gate_up)) {
    const auto parts = gate_up.chunk(2, -1);
    return at::silu(parts[0]) * parts[1];
  }
  at::Tensor y = kernels::swiglu(gate_up);
  compare_kernel("swiglu", y, [&] { return swiglu(gate_up); });
  return y;
}

at::Tensor rope(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                int64_t head_size) {
  if (custom(qkv)) {
    at::Tensor y = kernels::rope(qkv, cos_sin, heads, kv_heads, head_size);
    compare_kernel("rope", y, [&] { return rope(qkv, cos_sin, heads, kv_heads, head_size); });
    return y;
  }
  const at::Tensor rows = qkv.unflatten(-1, {heads + 2 * kv_heads, head_size});  // [B, T, H, N]
  const auto parts = rows.split_with_sizes({heads + kv_heads, kv_heads}, 2);
  const auto table = cos_sin.unsqueeze(1).chunk(2, -1);  // [T, 1, N / 2] each
  const auto halves = parts[0].to(at::kFloat).chunk(2, -1);
  const at::Tensor turned = at::cat(
      {halves[0] * table[0] - halves[1] * table[1], halves[1] * table[0] + halves[0] * table[1]},
      -1);
  return at::cat({turned.to(qkv.scalar_type()), parts[1]}, 2).flatten(2);
}

at::Tensor embedding(const at::Tensor& weight, const at::Tensor& positions, const at::Tensor& ids) {
  if (custom(weight)) {
    at::Tensor y = positions.defined() ? kernels::embedding_add(weight, positions, ids)
                                       : kernels::embedding(weight, ids);
    compare_kernel("embedding", y, [&] { return embedding(weight, positions, ids); });
    return y;
  }
  at::Tensor x = at::embedding(weight, ids);
  if (positions.defined()) x = x + positions;
  return x;
}

}  // namespace lehr::models
