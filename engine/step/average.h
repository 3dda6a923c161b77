// A moving average of the weights: average = d * average + (1 - d) * weights after every update,
// from the weights at the start. Buffers (batch statistics) are averages already and are not part
// of it; whoever evaluates the average uses the model's own.
#pragma once

#include <string>
#include <vector>

#include "engine/base/named_tensor.h"

namespace lehr::step {

class Average {
 public:
  // Copies `parameters` as the start. A frozen one never moves: its average is the tensor itself.
  Average(double decay, const NamedTensors& parameters, const NamedTensors& frozen);
  void update();
  // By parameter name, in the order given.
  const NamedTensors& tensors() const { return averages_; }
  at::Tensor of(const std::string& name) const;

 private:
  double decay_;
  NamedTensors averages_;
  std::vector<at::Tensor> moving_, weights_;
};

}  // namespace lehr::step
