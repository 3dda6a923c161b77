// Gives the others a world: rank, size, collectives. One rank is the plain case and costs nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace lehr::dist {

class World {
 public:
  virtual ~World() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void barrier() = 0;
  virtual void sum(at::Tensor& tensor) = 0;  // in place, over ranks
  virtual std::vector<at::Tensor> gather(
      const at::Tensor& tensor) = 0;  // of all ranks, in rank order
  virtual bool any(bool flag) = 0;
};

World& single();  // rank 0 of 1

}  // namespace lehr::dist
