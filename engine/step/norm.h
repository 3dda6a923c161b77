// The global norm of the gradients and whether all of them are finite, in one pass: clipping, loss
// scaling and the non-finite guard all come from this number.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace lehr::step {

// Square root of the sum of squares of all elements of the tensors that are defined; inf or NaN
// when any of them is, or any of `statistics` (float32, on the same device), which else count
// nothing. By Lehr's kernel (kernels/adamw): the same bits on any number of threads; or on a
// device, without `kernels`, by ATen's foreach ops. There this is the one point at which the host
// waits.
double global_norm(const std::vector<at::Tensor>& tensors, bool kernels = true,
                   const std::vector<at::Tensor>& statistics = {});
// Of a float32 or float64 tensor on the CPU.
bool all_finite(const at::Tensor& values);

}  // namespace lehr::step
