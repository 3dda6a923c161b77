// What the op files share: float dtypes, contiguous inputs, the checks that read alike. Needs
// LibTorch; raw kernels never include it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>

#include "kernels/common/dtype.h"

namespace lehr::kernels {

inline Float float_type_of(const at::Tensor& tensor, const char* op, const char* name) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return Float::kFloat32;
    case at::kBFloat16:
      return Float::kBFloat16;
    case at::kHalf:
      return Float::kFloat16;
    default:
      TORCH_CHECK(false, op, ": ", name, " must be float32, bfloat16 or float16, not ",
                  tensor.scalar_type());
  }
}

// `parameter` is [columns], float32 or of x's dtype, where x is
inline Float check_parameter(const at::Tensor& parameter, const at::Tensor& x, const char* op,
                             const char* name) {
  const int64_t columns = x.size(-1);
  TORCH_CHECK(parameter.dim() == 1 && parameter.size(0) == columns, op, ": ", name, " must be [",
              columns, "], not ", parameter.sizes());
  TORCH_CHECK(parameter.scalar_type() == at::kFloat || parameter.scalar_type() == x.scalar_type(),
              op, ": ", name, " must be float32 or ", x.scalar_type(), " as x is, not ",
              parameter.scalar_type());
  TORCH_CHECK(parameter.device() == x.device(), op, ": ", name, " is on ", parameter.device(),
              " and x on ", x.device());
  return float_type_of(parameter, op, name);
}

// `other` has x's shape, dtype and device
inline void check_like(const at::Tensor& other, const at::Tensor& x, const char* op,
                       const char* name) {
  TORCH_CHECK(other.sizes() == x.sizes() && other.scalar_type() == x.scalar_type() &&
                  other.device() == x.device(),
              op, ": ", name, " must be ", x.scalar_type(), " ", x.sizes(), " on ", x.device(),
              " as x is, not ", other.scalar_type(), " ", other.sizes(), " on ", other.device());
}

// [rows, columns] of a tensor with at least one dimension and one column
inline int64_t rows_of(const at::Tensor& x, const char* op) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) >= 1, op,
              ": x must have a last dimension of 1 or more, not ", x.sizes());
  return x.numel() / x.size(-1);
}

// rows a task: about 32k elements, below which a thread costs more than it brings
inline int64_t rows_a_task(int64_t columns) { return std::max<int64_t>(1, 32768 / columns); }

template <class... Tensors>
bool needs_gradient(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (tensors.requires_grad() || ...);
}

}  // namespace lehr::kernels
