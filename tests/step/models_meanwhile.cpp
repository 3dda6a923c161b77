// Stands in for the room `models` where it is not part of the build: the tree of parameters, and a
// keyed dropout.
#include <ATen/ATen.h>

#include "engine/base/error.h"
#include "engine/base/random.h"
#include "models/model.h"

namespace lehr::models {
namespace {

thread_local const DropoutKey* key = nullptr;

void collect(const Module& module, const std::string& prefix, bool buffers, NamedTensors* all) {
  for (const auto& [name, t] : buffers ? module.own_buffers() : module.own_parameters())
    all->push_back({prefix + name, t});
  for (const auto& [name, child] : module.children())
    collect(*child, prefix + name + ".", buffers, all);
}

}  // namespace

NamedTensors Module::parameters() const {
  NamedTensors all;
  collect(*this, "", false, &all);
  return all;
}

NamedTensors Module::buffers() const {
  NamedTensors all;
  collect(*this, "", true, &all);
  return all;
}

void Module::train(bool on) {
  training_ = on;
  for (auto& [name, child] : children_) child->train(on);
}

at::Tensor Module::add_parameter(std::string name, at::Tensor tensor) {
  tensor.set_requires_grad(true);
  parameters_.push_back({std::move(name), tensor});
  return tensor;
}

at::Tensor Module::add_buffer(std::string name, at::Tensor tensor) {
  buffers_.push_back({std::move(name), tensor});
  return tensor;
}

void set_dropout_key(const DropoutKey* k) { key = k; }

at::Tensor dropout(const at::Tensor& x, double p, int64_t layer, bool training) {
  if (!training || p == 0) return x;
  if (!key) throw Error(Code::kInternal, "dropout without a key");
  at::Tensor mask = at::empty(x.sizes(), at::kFloat);
  float* m = mask.data_ptr<float>();
  int64_t width = x.numel() / x.size(0);
  for (int64_t i = 0; i < x.size(0); ++i) {
    Random random(key->seed + static_cast<uint64_t>(layer), Stream::kDropout,
                  static_cast<uint64_t>((*key->samples)[static_cast<size_t>(i)]),
                  static_cast<uint64_t>(key->step));
    for (int64_t j = 0; j < width; ++j)
      m[i * width + j] = random.uniform() < p ? 0 : static_cast<float>(1 / (1 - p));
  }
  return x * mask;
}

}  // namespace lehr::models
