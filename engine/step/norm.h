// The global norm of the gradients and whether all of them are finite, in one pass: clipping, loss
// scaling and the non-finite guard all come from this number.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace lehr::step {

// Square root of the sum of squares of all elements of the tensors that are defined, 0-d float64
// where they are; inf or NaN when any of them is. By Lehr's kernel (kernels/adamw): the same bits
// on any number of threads; or on a device, without `kernels`, by ATen's foreach ops.
at::Tensor global_norm(const std::vector<at::Tensor>& tensors, bool kernels = true);

// 0 where every number of these tensors (float32 or float64) is finite, else NaN; 0-d float64 where
// they are.
at::Tensor zero_if_finite(const std::vector<at::Tensor>& tensors);

// The numbers of 0-d tensors. Those of a device cross in one copy: a step's one point at which the
// host waits for it.
std::vector<double> read(const std::vector<at::Tensor>& scalars);

}  // namespace lehr::step
