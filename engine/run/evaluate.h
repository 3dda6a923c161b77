// Runs a model over one split in eval mode, fp32, and gives the loss and the recipe's metrics.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/dist/world.h"
#include "engine/metrics/metrics.h"
#include "engine/recipe/recipe.h"
#include "engine/run/plan.h"
#include "models/model.h"

namespace lehr::run {

struct Evaluation {
  std::vector<metrics::Result> results;  // "loss" first
  int64_t samples = 0;
  int64_t bad_samples = 0;  // left out
  int64_t predicted = 0;    // of text: tokens that count
  double seconds = 0;
  bool stopped = false;      // before its end: there are no results
  std::exception_ptr error;  // of the data on this rank, which stopped it
  std::string non_finite;    // the first sample whose loss is not, where one is not
  std::optional<double> value(const std::string& name) const;
};

// The metrics that the recipe asks for, for this data set. Throws Error{kRecipe} for an unknown
// name.
std::vector<std::unique_ptr<metrics::Metric>> recipe_metrics(const recipe::Recipe& recipe,
                                                             const data::DataInfo& info);
// Throws Error{kData} when `what` holds more bad samples than data.max_bad_samples.
void check_bad_samples(const Parts& parts, int64_t bad, const std::string& what);
// Throws Error{kRecipe} when validation.monitor is not among what an evaluation gives: of these
// data, or `known`.
void check_monitor(const recipe::Recipe& recipe, const data::DataInfo& info);
void refuse_unknown_monitor(const recipe::Recipe& recipe, const StringList& known);
StringList text_results();  // of an evaluation of text

// With several ranks, each has a batch of `validation.batch_size` samples at a time, and all end
// with the same numbers: sums of losses are added up by rank, so they differ from those of one rank
// in their last bits, and so do metrics that are sums of real numbers; what counts or ranks does
// not.
// `stop` is asked between batches; over ranks about once a second, and all stop where one is told
// to, or where the data of one have an error; without it that error is thrown.
Evaluation evaluate(models::Model& model, const Parts& parts, data::Split split,
                    DeviceRuntime* device, dist::World& world = dist::single(),
                    const std::function<bool()>& stop = {});

}  // namespace lehr::run
