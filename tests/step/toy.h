// The smallest models and batches that show what a step does.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "engine/base/batch.h"
#include "engine/dist/world.h"
#include "models/model.h"

namespace lehr::step::toy {

struct Shape {
  std::vector<int64_t> widths{5, 7, 3};  // inputs, hidden ..., outputs
  bool batch_norm = false;               // after each hidden layer
  double dropout = 0;
  // two more weights of ones: `never` is not used, `sometimes` by batches with a first input > 0.9
  bool unused = false;
};

// fc1, fc2, ... with tanh (relu at `relu`) between them; weights are a function of `seed` alone.
std::shared_ptr<models::Model> mlp(const Shape& shape = {}, uint64_t seed = 1, bool relu = false);

at::Tensor uniform(std::vector<int64_t> sizes, uint64_t seed, double low = -1, double high = 1);
// Ids first, first + 1, ...; targets in [0, classes).
Batch classes(int64_t size, int64_t features = 5, int64_t classes = 3, uint64_t seed = 1);
// Rows [begin, end) of a batch.
Batch rows(const Batch& batch, int64_t begin, int64_t end);
std::vector<Batch> split(const Batch& batch, const std::vector<int64_t>& sizes);

// Rank 0 of some whose others say nothing: every sum is its own.
class Alone : public dist::World {
 public:
  explicit Alone(int size) : size_(size) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  void barrier(const std::string&) override {}
  std::unique_ptr<dist::Pending> begin_sum(at::Tensor) override { return dist::done(); }
  void sum_in_tree(at::Tensor) override {}
  std::unique_ptr<dist::Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override;
  std::unique_ptr<dist::Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override;
  std::unique_ptr<World> split(int) override { return std::make_unique<Alone>(size_); }
  void broadcast(at::Tensor, int) override {}
  void exchange(const at::Tensor&, at::Tensor, int) override {}
  std::vector<at::Tensor> gather(const at::Tensor& tensor) override;

 private:
  int size_;
};

NamedTensors copy(const NamedTensors& tensors);
// Same names, shapes and bits.
bool same_bits(const NamedTensors& a, const NamedTensors& b);
double largest_difference(const NamedTensors& a, const NamedTensors& b);
NamedTensors everything(const models::Model& model);  // parameters and buffers

}  // namespace lehr::step::toy
