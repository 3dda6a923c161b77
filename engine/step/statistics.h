// A model's buffers (batch statistics) as one flat tensor, which ranks sum and set as a whole.
#pragma once

#include <vector>

#include "engine/base/named_tensor.h"

namespace lehr::step {

class Statistics {
 public:
  Statistics(const NamedTensors& buffers, at::Device device);
  // float64 [size()], where the buffers are; float32 values and counts are exact in it.
  at::Tensor values() const;
  void set(const at::Tensor& values) const;
  int64_t size() const { return size_; }

 private:
  // of one dtype, so that a device takes each in a few kernels, whatever their number
  struct Alike {
    std::vector<at::Tensor> tensors;
    std::vector<int64_t> sizes;
  };
  const at::Device device_;
  std::vector<Alike> groups_;
  int64_t size_ = 0;
};

}  // namespace lehr::step
