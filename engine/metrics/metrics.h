// Predictions and targets into numbers that merge exactly across batches and ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::metrics {

// A metric's number, or why there is none (one class only, nothing seen): never NaN.
struct Result {
  std::string name;             // "accuracy", "f1_macro", "recall"
  std::optional<double> value;
  std::string why;              // set when value is not
};

class Metric {
 public:
  virtual ~Metric() = default;
  // scores: classification probabilities [B, C] float; regression values [B, K]. targets: int64 [B] or
  // float [B, K]. CPU tensors.
  virtual void update(const at::Tensor& scores, const at::Tensor& targets) = 0;
  // The state as one flat float64 tensor whose concatenation over ranks `merge` understands.
  virtual at::Tensor state() const = 0;
  virtual void merge(const at::Tensor& state) = 0;
  virtual std::vector<Result> compute() const = 0;
};

struct MetricContext {
  int64_t classes = 0;     // 0: regression
  int64_t positive = 1;    // the positive class of binary metrics
  int64_t bins = 15;       // calibration error
};

struct MetricEntry {
  std::string name, text;
  bool for_classes = false, for_values = false, binary_only = false;
  bool larger_is_better = true;
  std::unique_ptr<Metric> (*make)(const MetricContext& context);
};
const std::vector<MetricEntry>& registry();
// Throws Error{kRecipe} with the nearest name. Empty `names`: the usual ones for the task.
std::vector<std::unique_ptr<Metric>> make_metrics(const StringList& names, const MetricContext& context);
bool larger_is_better(const std::string& name);  // "loss" is smaller

}  // namespace lehr::metrics
