#include "engine/step/average.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

namespace lehr::step {

Average::Average(double decay, const NamedTensors& parameters) : decay_(decay) {
  c10::NoGradGuard no_grad;
  for (const auto& [name, weight] : parameters) {
    at::Tensor average = weight.detach();
    if (weight.requires_grad()) {
      average = average.clone();
      moving_.push_back(average);
      weights_.push_back(weight);
    }
    averages_.push_back({name, average});
  }
}

void Average::update() {
  c10::NoGradGuard no_grad;
  at::_foreach_lerp_(moving_, weights_, 1 - decay_);
}

}  // namespace lehr::step
