// Gradients of several parameters as one flat tensor, which is what ranks send each other.
#pragma once

#include <vector>

#include "engine/base/named_tensor.h"

namespace lehr::step {

using Tensors = std::vector<at::Tensor>;

// float32: the gradients one after the other, each in its parameter's own memory order (channels
// last or not: ATen's fused updates walk both alike), then a mark for each, 1 where there is one.
class FlatGradients {
 public:
  explicit FlatGradients(NamedTensors parameters);

  size_t count() const { return parameters_.size(); }
  at::Tensor empty() const;
  at::Tensor place(const at::Tensor& flat, size_t i) const;  // a view, as large as the parameter
  at::Tensor mark(const at::Tensor& flat, size_t i) const;   // 0-d view
  // zeros where there is none
  at::Tensor join(const Tensors& gradients) const;
  // Views; undefined where the mark is 0.
  Tensors split(const at::Tensor& flat) const;

 private:
  NamedTensors parameters_;
  std::vector<int64_t> offsets_;
  int64_t numbers_ = 0;
};

}  // namespace lehr::step
