// Activation checkpointing (Chen et al., arXiv 1604.06174): a part of the forward keeps only its
// inputs and runs again in the backward, with the dropout key and the kernels of the first time, so
// that its gradients have the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::models {

using Tensors = std::vector<at::Tensor>;

// Outputs of part(inputs). Parameters that `part` reads get their gradients as usual. Undefined
// inputs stay undefined. Without gradients, or with keep true, it is a plain call.
Tensors recomputed(bool keep, const Tensors& inputs,
                   const std::function<Tensors(const Tensors&)>& part);

// Section `activation_checkpoint`.
struct RecomputeFields {
  std::string mode = "none";  // none | full | selective
  static Section section();
};

}  // namespace lehr::models
