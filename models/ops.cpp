#include "models/ops.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <mutex>

#include "engine/base/error.h"

namespace lehr::models {
namespace {

thread_local Kernels in_use = Kernels::kAten;

}  // namespace

Kernels kernels_of(const std::string& name) {
  static const std::map<std::string, Kernels> names = {{"aten", Kernels::kAten},
                                                       {"custom", Kernels::kCustom},
                                                       {"auto", Kernels::kAuto},
                                                       {"check", Kernels::kCheck}};
  auto found = names.find(name);
  if (found == names.end())
    throw Error(Code::kInternal, fmt::format("no kernels are called `{}`", name));
  return found->second;
}

Kernels kernels_in_use() { return in_use; }

KernelScope::KernelScope(Kernels kernels) : before_(in_use) { in_use = kernels; }
KernelScope::~KernelScope() { in_use = before_; }

std::map<std::string, double> kernel_differences() { return {}; }

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
  return at::layer_norm(x, weight.sizes(), weight, bias, eps);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::rms_norm(x, weight.sizes(), weight, eps);
}

std::pair<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& branch,
                                                 const at::Tensor& weight, const at::Tensor& bias,
                                                 double eps) {
  const at::Tensor sum = branch.defined() ? x + branch : x;
  return {layer_norm(sum, weight, bias, eps), sum};
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& branch,
                                               const at::Tensor& weight, double eps) {
  const at::Tensor sum = branch.defined() ? x + branch : x;
  return {rms_norm(sum, weight, eps), sum};
}

at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias) {
  return at::gelu(x + bias, "tanh");
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const auto parts = gate_up.chunk(2, -1);
  return at::silu(parts[0]) * parts[1];
}

at::Tensor rope(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                int64_t head_size) {
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
  at::Tensor x = at::embedding(weight, ids);
  if (positions.defined()) x = x + positions;
  return x;
}

}  // namespace lehr::models
