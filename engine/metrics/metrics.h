// Predictions and targets into numbers that merge exactly across batches and ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::metrics {

// A metric's number, or why there is none (one class only, nothing seen): never NaN.
struct Result {
  std::string name;  // "accuracy", "f1_macro", "recall"
  std::optional<double> value;
  std::string why;  // set when value is not
};

using Matrix = std::vector<std::vector<int64_t>>;  // [true class][predicted class]

class Metric {
 public:
  virtual ~Metric() = default;
  // scores: classification probabilities [B, C] float; regression values [B, K]. targets: int64 [B]
  // or float [B, K]. CPU tensors; computed in double. Throws Error{kData} for a target outside [0,
  // C).
  virtual void update(const at::Tensor& scores, const at::Tensor& targets) = 0;
  // The state as one flat float64 tensor whose concatenation over ranks `merge` understands.
  virtual at::Tensor state() const = 0;
  // Adds the samples of one or several concatenated states to what this metric has seen. To combine
  // ranks, merge the states of all of them into a fresh metric.
  virtual void merge(const at::Tensor& state) = 0;
  virtual std::vector<Result> compute() const = 0;
  // Counts by class; empty for every metric but `confusion`, whose compute() has no results.
  virtual Matrix matrix() const { return {}; }
};

struct MetricContext {
  int64_t classes = 0;   // 0: regression
  int64_t positive = 1;  // the positive class of binary metrics
  int64_t bins = 15;     // calibration error
  int64_t k = 5;         // top-k accuracy; set by make_metrics from the name
};

struct MetricEntry {
  std::string name, text;
  bool for_classes = false, for_values = false, binary_only = false;
  bool larger_is_better = true;
  std::unique_ptr<Metric> (*make)(const MetricContext& context);
};
const std::vector<MetricEntry>& registry();
// Names are those of the registry, and top_<k>_accuracy for any k >= 1. Throws Error{kRecipe} with
// the nearest name. Empty `names`: the usual ones for the task.
std::vector<std::unique_ptr<Metric>> make_metrics(const StringList& names,
                                                  const MetricContext& context);
StringList usual_metrics(const MetricContext& context);
// Names of the metrics of classes, or of values.
StringList known_names(bool for_classes);
// Throws Error{kRecipe} for a name that is none of them.
void check_name(const std::string& name, bool for_classes);
// Which of `known` the word of another system ("val_loss", "RMSE", "acc") or a slip means, or "".
std::string meant(const std::string& name, const StringList& known);
// Takes "accuracy" or "validation.accuracy"; "loss" is smaller. Throws Error{kRecipe} for unknown
// names.
bool larger_is_better(const std::string& name);

}  // namespace lehr::metrics
