#include "engine/run/evaluate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>

#include "engine/base/error.h"
#include "engine/data/loader.h"
#include "engine/metrics/fields.h"
#include "engine/step/step.h"

namespace lehr::run {

std::optional<double> Evaluation::value(const std::string& name) const {
  for (const auto& result : results)
    if (result.name == name) return result.value;
  return std::nullopt;
}

std::vector<std::unique_ptr<metrics::Metric>> recipe_metrics(const recipe::Recipe& recipe,
                                                             const data::DataInfo& info) {
  const auto fields = recipe.get<metrics::MetricsFields>();
  return metrics::make_metrics(fields.names, metrics::make_context(fields, info.classes));
}

void check_monitor(const recipe::Recipe& recipe, const data::DataInfo& info) {
  const auto monitor = recipe.get<ValidationFields>().monitor;
  std::vector<std::string> known{"loss"};
  for (const auto& metric : recipe_metrics(recipe, info))
    for (const auto& result : metric->compute()) known.push_back(result.name);
  if (std::find(known.begin(), known.end(), monitor) != known.end()) return;
  std::string near = nearest(monitor, known);
  throw Error(Code::kRecipe,
              fmt::format("validation.monitor {} is not among what an evaluation gives: {}",
                          monitor, fmt::join(known, ", ")),
              recipe.where("validation.monitor"),
              near.empty() ? "choose one of these, or add it to metrics.names"
                           : "did you mean " + near + "?");
}

Evaluation evaluate(models::Model& model, const Parts& parts, data::Split split,
                    DeviceRuntime* device) {
  const auto begin = std::chrono::steady_clock::now();
  const bool was_training = model.is_training();
  at::NoGradGuard no_grad;
  model.train(false);
  data::LoaderOptions options;
  options.split = split;
  options.global_batch = options.micro_batch = parts.recipe.get<ValidationFields>().batch_size;
  options.shuffle = options.augment = options.drop_last = false;
  options.one_pass = true;
  options.device = device;
  data::Loader loader(parts.dataset, options);
  auto all = recipe_metrics(parts.recipe, parts.dataset->info());
  Evaluation evaluation;
  double loss = 0, weight = 0;
  for (data::StepBatch batch = loader.next(); !batch.micro.empty(); batch = loader.next()) {
    for (const Batch& micro : batch.micro) {
      const at::Tensor outputs = model.forward(micro.inputs).to(at::kFloat);
      const auto [sum, w] = step::loss_sum(parts.recipe, outputs, micro.targets);
      loss += sum, weight += w;
      const at::Tensor scores = step::to_scores(parts.recipe, outputs).cpu();
      const at::Tensor targets = micro.targets.cpu();
      for (auto& metric : all) metric->update(scores, targets);
      evaluation.samples += micro.size();
    }
  }
  metrics::Result mean{"loss", std::nullopt, "no samples"};
  if (weight > 0) mean.value = loss / weight, mean.why.clear();
  evaluation.results.push_back(mean);
  for (auto& metric : all)
    for (auto& result : metric->compute()) evaluation.results.push_back(result);
  model.train(was_training);
  evaluation.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return evaluation;
}

}  // namespace lehr::run
