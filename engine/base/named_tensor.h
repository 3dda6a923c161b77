// A tensor and its dotted name: the common currency of models, optimizers, checkpoints and export.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace lehr {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};
using NamedTensors = std::vector<NamedTensor>;

}  // namespace lehr
