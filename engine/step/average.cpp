#include "engine/step/average.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <set>

namespace lehr::step {

Average::Average(double decay, const NamedTensors& parameters, const NamedTensors& frozen)
    : decay_(decay) {
  c10::NoGradGuard no_grad;
  std::set<std::string> still;
  for (const auto& p : frozen) still.insert(p.name);
  for (const auto& [name, weight] : parameters) {
    at::Tensor average = weight.detach();
    if (!still.contains(name)) {
      average = average.clone();
      moving_.push_back(average);
      weights_.push_back(weight);
    }
    averages_.push_back({name, average});
  }
}

at::Tensor Average::of(const std::string& name) const {
  for (const auto& average : averages_)
    if (average.name == name) return average.tensor;
  return {};
}

void Average::update() {
  c10::NoGradGuard no_grad;
  at::_foreach_lerp_(moving_, weights_, 1 - decay_);
}

}  // namespace lehr::step
