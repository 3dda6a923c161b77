#include "models/module.h"

#include <ATen/ATen.h>

namespace lehr::models {
namespace {

using Own = const NamedTensors& (Module::*)() const;

void collect(const Module& module, Own own, const std::string& prefix, NamedTensors& all) {
  for (const auto& [name, tensor] : (module.*own)()) all.push_back({prefix + name, tensor});
  for (const auto& [name, child] : module.children()) {
    collect(*child, own, prefix + name + ".", all);
  }
}

}  // namespace

NamedTensors Module::parameters() const {
  NamedTensors all;
  collect(*this, &Module::own_parameters, "", all);
  return all;
}

NamedTensors Module::buffers() const {
  NamedTensors all;
  collect(*this, &Module::own_buffers, "", all);
  return all;
}

void Module::train(bool on) {
  training_ = on;
  for (const auto& [name, child] : children_) child->train(on);
}

at::Tensor Module::add_parameter(std::string name, at::Tensor tensor) {
  tensor.requires_grad_(true);
  parameters_.push_back({std::move(name), tensor});
  return tensor;
}

at::Tensor Module::add_buffer(std::string name, at::Tensor tensor) {
  buffers_.push_back({std::move(name), tensor});
  return tensor;
}

}  // namespace lehr::models
