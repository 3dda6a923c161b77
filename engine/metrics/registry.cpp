// Names for the metrics, and what a recipe may ask for.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "engine/base/error.h"
#include "engine/metrics/families.h"
#include "engine/metrics/metrics.h"

namespace lehr::metrics {

namespace {

using Context = const MetricContext&;
using MakeMetric = decltype(MetricEntry::make);

MetricEntry of_classes(std::string name, std::string text, MakeMetric make) {
  return {std::move(name), std::move(text), true, false, false, true, make};
}
MetricEntry of_two_classes(std::string name, std::string text, MakeMetric make) {
  return {std::move(name), std::move(text), true, false, true, true, make};
}
MetricEntry of_values(std::string name, std::string text, MakeMetric make) {
  return {std::move(name), std::move(text), false, true, false, true, make};
}
MetricEntry smaller(MetricEntry entry) {
  entry.larger_is_better = false;
  return entry;
}

std::vector<MetricEntry> entries() {
  using enum Rate;
  using enum Average;
  return {
      of_classes("accuracy", "Share of samples whose most probable class is the true one.",
                 make_accuracy),
      of_classes("top_5_accuracy",
                 "Share of samples with the true class among the k most probable.", make_top_k),
      of_two_classes("precision", "Of the samples predicted positive, the share that are.",
                     [](Context c) { return make_rate("precision", kPrecision, kBinary, c); }),
      of_two_classes("recall", "Of the positive samples, the share predicted so.",
                     [](Context c) { return make_rate("recall", kRecall, kBinary, c); }),
      of_two_classes("sensitivity", "Recall, by its clinical name.",
                     [](Context c) { return make_rate("sensitivity", kRecall, kBinary, c); }),
      of_two_classes("specificity", "Of the negative samples, the share predicted so.",
                     [](Context c) { return make_rate("specificity", kSpecificity, kBinary, c); }),
      of_two_classes("f1", "Harmonic mean of precision and recall.",
                     [](Context c) { return make_rate("f1", kF1, kBinary, c); }),
      of_classes("precision_macro", "Precision of each class, averaged over classes.",
                 [](Context c) { return make_rate("precision_macro", kPrecision, kMacro, c); }),
      of_classes("recall_macro", "Recall of each class, averaged over classes.",
                 [](Context c) { return make_rate("recall_macro", kRecall, kMacro, c); }),
      of_classes("f1_macro", "F1 of each class, averaged over classes.",
                 [](Context c) { return make_rate("f1_macro", kF1, kMacro, c); }),
      of_classes("precision_micro", "Precision over all decisions: equals accuracy.",
                 [](Context c) { return make_rate("precision_micro", kPrecision, kMicro, c); }),
      of_classes("recall_micro", "Recall over all decisions: equals accuracy.",
                 [](Context c) { return make_rate("recall_micro", kRecall, kMicro, c); }),
      of_classes("f1_micro", "F1 over all decisions: equals accuracy.",
                 [](Context c) { return make_rate("f1_micro", kF1, kMicro, c); }),
      of_classes("roc_auc",
                 "Area under the ROC curve; several classes: mean of one against the rest.",
                 make_roc_auc),
      of_classes("pr_auc", "Average precision; several classes: mean of one against the rest.",
                 make_pr_auc),
      smaller(of_classes("log_loss", "Mean negative log probability of the true class.",
                         make_log_loss)),
      smaller(of_classes("calibration_error",
                         "Expected calibration error of the top label, equal-width bins.",
                         make_calibration_error)),
      of_classes("confusion", "Counts by true and predicted class, for reports.", make_confusion),
      smaller(of_values("rmse", "Root of the mean squared error.", make_rmse)),
      smaller(of_values("mae", "Mean absolute error.", make_mae)),
      of_values("r2", "Share of the variance explained.", make_r2),
  };
}

// k of "top_<k>_accuracy", or 0.
int64_t top_k_of(const std::string& name) {
  if (!name.starts_with("top_")) return 0;
  char* end = nullptr;
  const int64_t k = std::strtoll(name.c_str() + 4, &end, 10);
  return std::string_view(end) == "_accuracy" && k > 0 ? k : 0;
}

const MetricEntry* find(const std::string& name) {
  const std::string key = top_k_of(name) > 0 ? "top_5_accuracy" : name;
  for (const MetricEntry& entry : registry())
    if (entry.name == key) return &entry;
  return nullptr;
}

[[noreturn]] void unknown(const std::string& name, const StringList& known) {
  const std::string near = meant(name, known);
  throw Error(Code::kRecipe, fmt::format("there is no metric \"{}\" for this task", name),
              "metrics.names",
              near.empty() ? fmt::format("Choose from: {}.", fmt::join(known, ", "))
                           : fmt::format("Did you mean {}?", near));
}

}  // namespace

const std::vector<MetricEntry>& registry() {
  static const std::vector<MetricEntry> all = entries();
  return all;
}

StringList known_names(bool for_classes) {
  StringList known;
  for (const MetricEntry& entry : registry())
    if (for_classes ? entry.for_classes : entry.for_values) known.push_back(entry.name);
  return known;
}

void check_name(const std::string& name, bool for_classes) {
  const MetricEntry* entry = find(name);
  if (!entry || !(for_classes ? entry->for_classes : entry->for_values))
    unknown(name, known_names(for_classes));
}

std::string meant(const std::string& name, const StringList& known) {
  static const std::map<std::string, std::string> words = {{"acc", "accuracy"},
                                                           {"top1", "accuracy"},
                                                           {"auc", "roc_auc"},
                                                           {"auroc", "roc_auc"},
                                                           {"ap", "pr_auc"},
                                                           {"auprc", "pr_auc"},
                                                           {"average_precision", "pr_auc"},
                                                           {"ece", "calibration_error"},
                                                           {"nll", "log_loss"},
                                                           {"f1_score", "f1"},
                                                           {"mse", "rmse"},
                                                           {"l1", "mae"},
                                                           {"r2_score", "r2"},
                                                           {"ppl", "perplexity"},
                                                           {"bpb", "bits_per_byte"}};
  std::string word;
  for (char c : name)
    word += c == '/' || c == '-' ? '_' : c >= 'A' && c <= 'Z' ? char(c | 0x20) : c;
  const auto is_known = [&](const std::string& one) {
    return std::find(known.begin(), known.end(), one) != known.end();
  };
  // the split that other systems write before it
  for (const char* split : {"val", "valid", "validation", "eval", "test"})
    for (const char* mark : {"_", "."})
      if (const std::string start = std::string(split) + mark; word.starts_with(start))
        word.erase(0, start.size());
  if (is_known(word)) return word;
  if (const auto other = words.find(word); other != words.end() && is_known(other->second))
    return other->second;
  return nearest(word, known);
}

StringList usual_metrics(const MetricContext& context) {
  if (context.classes == 0) return {"rmse", "mae", "r2"};
  if (context.classes == 2)
    return {"accuracy", "precision", "recall",   "specificity",       "f1",
            "roc_auc",  "pr_auc",    "log_loss", "calibration_error", "confusion"};
  if (context.classes <= 10)
    return {"accuracy", "f1_macro", "log_loss", "calibration_error", "confusion"};
  return {"accuracy", "top_5_accuracy", "f1_macro", "log_loss", "calibration_error", "confusion"};
}

std::vector<std::unique_ptr<Metric>> make_metrics(const StringList& names,
                                                  const MetricContext& context) {
  std::vector<std::unique_ptr<Metric>> made;
  const bool classes = context.classes > 0;
  for (const std::string& name : names.empty() ? usual_metrics(context) : names) {
    check_name(name, classes);
    const MetricEntry* entry = find(name);
    if (entry->binary_only && context.classes != 2)
      throw Error(
          Code::kRecipe,
          fmt::format("metric \"{}\" is for two classes, the data has {}", name, context.classes),
          "metrics.names",
          find(name + "_macro") ? fmt::format("Use {0}_macro or {0}_micro.", name)
                                : "Use recall_macro.");
    MetricContext own = context;
    if (const int64_t k = top_k_of(name)) own.k = k;
    made.push_back(entry->make(own));
  }
  return made;
}

bool larger_is_better(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);
  if (last == "loss" || last == "perplexity" || last == "bits_per_byte") return false;
  const MetricEntry* entry = find(last);
  if (!entry) unknown(last, known_names(true));
  return entry->larger_is_better;
}

}  // namespace lehr::metrics
