#include "engine/step/norm.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "kernels/adamw/adamw_op.h"

namespace lehr::step {
namespace {

template <class T>
bool all_finite(const at::Tensor& values) {
  const at::Tensor dense = values.contiguous();
  const T* at = dense.const_data_ptr<T>();
  return std::all_of(at, at + dense.numel(), [](T value) { return std::isfinite(value); });
}

}  // namespace

at::Tensor zero_if_finite(const std::vector<at::Tensor>& tensors) {
  c10::NoGradGuard no_grad;
  if (!tensors.empty() && !tensors[0].is_cpu()) {
    const auto zeros = at::_foreach_mul(tensors, 0.0);  // or NaN
    return at::stack(at::_foreach_norm(zeros, 2)).to(at::kDouble).sum();
  }
  const bool finite = std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& values) {
    return values.scalar_type() == at::kDouble ? all_finite<double>(values)
                                               : all_finite<float>(values);
  });
  return at::scalar_tensor(finite ? 0.0 : NAN, at::kDouble);
}

at::Tensor global_norm(const std::vector<at::Tensor>& tensors, bool kernels) {
  std::vector<at::Tensor> defined;
  for (const auto& tensor : tensors)
    if (tensor.defined()) defined.push_back(tensor);
  if (defined.empty()) return at::zeros({}, at::kDouble);
  if (kernels || defined[0].is_cpu()) return kernels::global_norm(defined);
  c10::NoGradGuard no_grad;
  const at::Tensor norms = at::stack(at::_foreach_norm(defined, 2)).to(at::kDouble);
  return norms.square().sum().sqrt();
}

std::vector<double> read(const std::vector<at::Tensor>& scalars) {
  std::vector<double> numbers;
  std::vector<at::Tensor> crossing;
  for (const auto& scalar : scalars) {
    if (scalar.is_cpu())
      numbers.push_back(scalar.item<double>());
    else
      numbers.push_back(0), crossing.push_back(scalar.to(at::kDouble));
  }
  if (crossing.empty()) return numbers;
  const at::Tensor host = at::stack(crossing).cpu();
  const double* next = host.const_data_ptr<double>();
  for (size_t i = 0; i < scalars.size(); ++i)
    if (!scalars[i].is_cpu()) numbers[i] = *next++;
  return numbers;
}

}  // namespace lehr::step
