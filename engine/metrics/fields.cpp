#include "engine/metrics/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "engine/base/error.h"

namespace lehr::metrics {

Section MetricsFields::section() {
  std::string known;
  for (const MetricEntry& entry : registry())
    known += (known.empty() ? "" : ", ") +
             (entry.name == "top_5_accuracy" ? "top_<k>_accuracy" : entry.name);
  Declare<MetricsFields> d("metrics", "What is measured, and where the numbers go.");
  d.field("names", &MetricsFields::names,
          "Metrics of an evaluation; empty: the usual ones for the task. Known: " + known + ".")
      .synonyms({"metrics.metrics", "training.metrics", "metrics_spec", "validation.metrics"})
      .free_to_change();
  d.field("positive", &MetricsFields::positive,
          "The positive class of two, by name or index; empty: the second one (index 1).")
      .synonyms({"pos_label", "positive_class"})
      .free_to_change();
  d.field("calibration_bins", &MetricsFields::calibration_bins,
          "Equal-width bins of the calibration error.")
      .range(1, 1000)
      .synonyms({"n_bins", "num_bins"})
      .free_to_change();
  return d.section();
}

MetricContext make_context(const MetricsFields& fields, const StringList& classes) {
  MetricContext context;
  context.classes = static_cast<int64_t>(classes.size());
  context.bins = fields.calibration_bins;
  if (fields.positive.empty()) return context;
  const auto by_name = std::find(classes.begin(), classes.end(), fields.positive);
  if (by_name != classes.end()) {
    context.positive = by_name - classes.begin();
    return context;
  }
  char* end = nullptr;
  context.positive = std::strtoll(fields.positive.c_str(), &end, 10);
  if (*end || context.positive < 0 || context.positive >= context.classes) {
    const std::string near = nearest(fields.positive, classes);
    throw Error(Code::kRecipe,
                classes.empty()
                    ? "a positive class is named, but the data has values and no classes"
                    : fmt::format("\"{}\" is no class of the data", fields.positive),
                "metrics.positive",
                near.empty() ? fmt::format("Name a class, or an index below {}.", classes.size())
                             : fmt::format("Did you mean {}?", near));
  }
  return context;
}

std::vector<Section> sections() { return {MetricsFields::section()}; }

}  // namespace lehr::metrics
