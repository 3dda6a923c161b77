// The recipe fields of metrics: part of section `metrics`; where the numbers go is declared in
// engine/track.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/fields.h"
#include "engine/metrics/metrics.h"

namespace lehr::metrics {

struct MetricsFields {
  StringList names;
  std::string positive;
  int64_t calibration_bins = 15;
  static Section section();
};

// Of a recipe and the data's classes (empty: regression). Throws Error{kRecipe} when
// `metrics.positive` is neither a class name nor an index.
MetricContext make_context(const MetricsFields& fields, const StringList& classes);
std::vector<Section> sections();

}  // namespace lehr::metrics
