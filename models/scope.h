// Where a layer under construction stands in its model: the dotted name so far, and with it the
// tensors it starts from. A value is a function of (seed, name), so it does not depend on the order
// of construction; on the meta device nothing is drawn.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace lehr::models {

class Scope {
 public:
  // `options`: device and dtype of everything made below
  Scope(const at::TensorOptions& options, uint64_t seed, std::string prefix = "")
      : options_(options), seed_(seed), prefix_(std::move(prefix)) {}
  // Of the child `name`: "layer1" inside "" gives "layer1.".
  Scope inside(const std::string& name) const { return {options_, seed_, prefix_ + name + "."}; }

  // uniform in [-bound, bound)
  at::Tensor uniform(const std::string& name, at::IntArrayRef sizes, double bound) const;
  // normal with mean 0
  at::Tensor normal(const std::string& name, at::IntArrayRef sizes, double deviation) const;
  at::Tensor filled(at::IntArrayRef sizes, double value) const;
  const at::TensorOptions& options() const { return options_; }

 private:
  at::TensorOptions options_;
  uint64_t seed_;
  std::string prefix_;
};

}  // namespace lehr::models
