// Batch normalization, whose batch may be that of several ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace lehr::models {

// Adds up a float64 tensor over the ranks, in place.
using SumOverRanks = std::function<void(at::Tensor)>;

// While it lives, batches that this thread normalizes in training are parts of one: statistics and
// gradients are those of all ranks' samples. nullptr: nothing changes. `sum` outlives the backward.
class SharedBatchScope {
 public:
  explicit SharedBatchScope(const SumOverRanks* sum);
  ~SharedBatchScope();
  SharedBatchScope(const SharedBatchScope&) = delete;
  SharedBatchScope& operator=(const SharedBatchScope&) = delete;

 private:
  const SumOverRanks* before_;
};

// x [N, C, ...]; weight, bias and the running values [C], which training moves by `momentum`: but
// for the variance of a single value a channel, which is not known.
// Shared, each call sums 1 + 2 C numbers, and 2 C in its backward.
at::Tensor batch_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& running_mean, const at::Tensor& running_var,
                      bool is_training, double momentum = 0.1, double eps = 1e-5);

}  // namespace lehr::models
