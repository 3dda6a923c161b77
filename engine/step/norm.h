// The global norm of the gradients and whether all of them are finite, in one pass: clipping, loss
// scaling and the non-finite guard all come from this number.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace lehr::step {

// Square root of the sum of squares of all elements of float32 tensors; inf or NaN when any of them
// is. On the CPU summed in double and in an order that does not depend on the number of threads; on
// a device by ATen's foreach ops, where this is the one point at which the host waits.
double global_norm(const std::vector<at::Tensor>& tensors);

}  // namespace lehr::step
