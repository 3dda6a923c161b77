// Gradients of several parameters as one flat tensor, which is what ranks send each other.
#pragma once

#include <vector>

#include "engine/base/named_tensor.h"
#include "engine/base/rows.h"

namespace lehr::step {

using Tensors = std::vector<at::Tensor>;

// float32, as many equal parts as ranks share the gradients: each part holds its rows of every
// parameter, one parameter after the other, in the parameter's own memory order (channels last or
// not: ATen's fused updates walk both alike). One part: the gradients one after the other.
class FlatGradients {
 public:
  explicit FlatGradients(NamedTensors parameters, int64_t parts = 1);

  size_t count() const { return parameters_.size(); }
  at::Tensor empty() const;                                     // all parts
  at::Tensor part(const at::Tensor& flat, int64_t part) const;  // a view of one of them
  // Rows of parameter i in a part that is taken alone; undefined where it has none.
  at::Tensor rows(const at::Tensor& part_alone, size_t i, int64_t part) const;
  // All parts' rows of a tensor of that parameter's shape, to and from a flat one.
  void put(const at::Tensor& flat, size_t i, const at::Tensor& whole) const;
  void get(const at::Tensor& flat, size_t i, const at::Tensor& whole) const;
  void zero(const at::Tensor& flat, size_t i) const;

 private:
  // calls f(rows of the flat one, which rows they are) for each part that has any
  template <class F>
  void for_each_part(const at::Tensor& flat, size_t i, F f) const;

  NamedTensors parameters_;
  const int64_t parts_;
  at::TensorOptions options_;
  std::vector<std::vector<int64_t>> offsets_;  // [part][i]
  int64_t numbers_ = 0;                        // of a part
};

// A part's rows of a tensor; a scalar counts as one.
Rows part_of(const at::Tensor& tensor, int64_t parts, int64_t part);
// The view of them; undefined where there are none.
at::Tensor rows_in(const at::Tensor& tensor, const Rows& rows);

}  // namespace lehr::step
