#include "engine/step/norm.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "kernels/adamw/adamw_op.h"

namespace lehr::step {
namespace {

template <class T>
bool all_finite_as(const at::Tensor& values) {
  const at::Tensor dense = values.contiguous();
  const T* at = dense.const_data_ptr<T>();
  return std::all_of(at, at + dense.numel(), [](T value) { return std::isfinite(value); });
}

// 0-d, on the tensors' device
at::Tensor norm_of(const std::vector<at::Tensor>& tensors, bool kernels) {
  if (kernels || tensors[0].is_cpu()) return kernels::global_norm(tensors);
  const at::Tensor norms = at::stack(at::_foreach_norm(tensors, 2)).to(at::kDouble);
  return norms.square().sum().sqrt();
}

}  // namespace

bool all_finite(const at::Tensor& values) {
  return values.scalar_type() == at::kDouble ? all_finite_as<double>(values)
                                             : all_finite_as<float>(values);
}

double global_norm(const std::vector<at::Tensor>& tensors, bool kernels,
                   const std::vector<at::Tensor>& statistics) {
  c10::NoGradGuard no_grad;
  const bool on_cpu = statistics.empty() || statistics[0].is_cpu();
  if (on_cpu && !std::all_of(statistics.begin(), statistics.end(), all_finite)) return NAN;
  std::vector<at::Tensor> defined;
  for (const auto& tensor : tensors)
    if (tensor.defined()) defined.push_back(tensor);
  if (defined.empty() && on_cpu) return 0;
  at::Tensor norm = defined.empty() ? at::Tensor() : norm_of(defined, kernels);
  if (!on_cpu) {
    const at::Tensor nothing = norm_of(statistics, kernels) * 0;  // or NaN
    norm = norm.defined() ? norm + nothing : nothing;
  }
  return norm.item<double>();
}

}  // namespace lehr::step
