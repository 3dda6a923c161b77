// A small language model's micro-batch as parts side by side, one core each. The ops of a small
// model are too short to share: with two threads a quarter of the time went into waiting for each
// other (seen on 4 layers of 128), and the parts take it away.
#pragma once

#include <functional>
#include <vector>

#include "engine/base/batch.h"
#include "engine/base/named_tensor.h"

namespace lehr::step {

// Rows [begin, end) of a batch.
Batch rows_of(const Batch& batch, int64_t begin, int64_t end);

// How many parts: one a thread of ATen and never more than samples, or 1 where `parameters` are so
// many that each part's gradients, which are held apart, would take more than 16 MB.
int64_t parts_of(const Batch& batch, const NamedTensors& parameters);

// Sum of loss(part) over the parts, 0-d; their gradients, times `seed`, are added to those of
// `parameters` in the order of the parts, so the bits depend on how many there are and on nothing
// else. `loss` is called on several threads at once.
at::Tensor backward_in_parts(const Batch& batch, int64_t parts, const NamedTensors& parameters,
                             const at::Tensor& seed,
                             const std::function<at::Tensor(const Batch&)>& loss);

}  // namespace lehr::step
