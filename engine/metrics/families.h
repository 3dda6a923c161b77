// The makers of the metrics, one block per family file; registry.cpp gives them names.
#pragma once

#include <memory>
#include <string>

#include "engine/metrics/metrics.h"

namespace lehr::metrics {

// counts.cpp: counts of true and predicted classes
enum class Rate { kPrecision, kRecall, kF1, kSpecificity };
enum class Average { kBinary, kMacro, kMicro };
std::unique_ptr<Metric> make_accuracy(const MetricContext& context);
std::unique_ptr<Metric> make_top_k(const MetricContext& context);
std::unique_ptr<Metric> make_rate(std::string name, Rate rate, Average average,
                                  const MetricContext& context);
std::unique_ptr<Metric> make_confusion(const MetricContext& context);

// ranking.cpp: areas under curves; these keep every score
std::unique_ptr<Metric> make_roc_auc(const MetricContext& context);
std::unique_ptr<Metric> make_pr_auc(const MetricContext& context);

// probability.cpp: how far probabilities can be believed
std::unique_ptr<Metric> make_log_loss(const MetricContext& context);
std::unique_ptr<Metric> make_calibration_error(const MetricContext& context);

// values.cpp: distances of regression values
std::unique_ptr<Metric> make_rmse(const MetricContext& context);
std::unique_ptr<Metric> make_mae(const MetricContext& context);
std::unique_ptr<Metric> make_r2(const MetricContext& context);

}  // namespace lehr::metrics
