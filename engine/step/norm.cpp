#include "engine/step/norm.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "kernels/adamw/adamw_op.h"

namespace lehr::step {

double global_norm(const std::vector<at::Tensor>& tensors, bool kernels) {
  std::vector<at::Tensor> defined;
  for (const auto& tensor : tensors)
    if (tensor.defined()) defined.push_back(tensor);
  if (defined.empty()) return 0;
  if (kernels || defined[0].is_cpu()) return kernels::global_norm(defined).item<double>();
  c10::NoGradGuard no_grad;
  const at::Tensor norms = at::stack(at::_foreach_norm(defined, 2)).to(at::kDouble);
  return norms.square().sum().sqrt().item<double>();
}

}  // namespace lehr::step
