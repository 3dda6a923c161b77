#include "engine/run/evaluate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "engine/base/error.h"
#include "engine/data/fields.h"
#include "engine/data/loader.h"
#include "engine/metrics/fields.h"
#include "engine/step/step.h"

namespace lehr::run {
namespace {

constexpr const char* kPerplexity = "perplexity";
constexpr const char* kBitsPerByte = "bits_per_byte";

// of the tokens that are predicted: targets that count
double bytes_of(const at::Tensor& token_bytes, const at::Tensor& targets) {
  const at::Tensor ids = targets.cpu().flatten();
  return token_bytes.index_select(0, ids.masked_select(ids.ge(0))).sum().item<double>();
}

}  // namespace

std::optional<double> Evaluation::value(const std::string& name) const {
  for (const auto& result : results)
    if (result.name == name) return result.value;
  return std::nullopt;
}

std::vector<std::unique_ptr<metrics::Metric>> recipe_metrics(const recipe::Recipe& recipe,
                                                             const data::DataInfo& info) {
  if (info.is_text) return {};
  const auto fields = recipe.get<metrics::MetricsFields>();
  return metrics::make_metrics(fields.names, metrics::make_context(fields, info.classes));
}

StringList text_results() { return {"loss", kPerplexity, kBitsPerByte}; }

void refuse_unknown_monitor(const recipe::Recipe& recipe, const StringList& known) {
  const auto monitor = recipe.get<ValidationFields>().monitor;
  if (std::find(known.begin(), known.end(), monitor) != known.end()) return;
  const std::string near = metrics::meant(monitor, known);
  throw Error(
      Code::kRecipe,
      fmt::format("{} is not among what an evaluation gives: {}", monitor, fmt::join(known, ", ")),
      "validation.monitor",
      near.empty() ? "choose one of these, or add it to metrics.names"
                   : "did you mean " + near + "?");
}

void check_monitor(const recipe::Recipe& recipe, const data::DataInfo& info) {
  StringList known{"loss"};
  if (info.is_text) known = text_results();
  for (const auto& metric : recipe_metrics(recipe, info))
    for (const auto& result : metric->compute()) known.push_back(result.name);
  refuse_unknown_monitor(recipe, known);
}

void check_bad_samples(const Parts& parts, int64_t bad, const std::string& what) {
  data::check_bad_samples(bad, parts.recipe.get<data::FolderFields>().max_bad_samples, what);
}

Evaluation evaluate(models::Model& model, const Parts& parts, data::Split split,
                    DeviceRuntime* device, dist::World& world) {
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
  options.rank = world.rank(), options.world = world.size();
  data::Loader loader(parts.dataset, options);
  auto all = recipe_metrics(parts.recipe, parts.dataset->info());
  const data::DataInfo& info = parts.dataset->info();
  Evaluation evaluation;
  double loss = 0, weight = 0, bytes = 0;
  for (data::StepBatch batch = loader.next(); batch.samples > 0; batch = loader.next()) {
    for (const Batch& micro : batch.micro) {
      const step::Evaluated batch_loss = step::evaluate_batch(parts.recipe, model, micro);
      loss += batch_loss.sum, weight += batch_loss.weight;
      evaluation.samples += micro.size();
      if (info.token_bytes.defined()) bytes += bytes_of(info.token_bytes, micro.targets);
      if (all.empty()) continue;
      const at::Tensor scores =
          step::to_scores(parts.recipe, batch_loss.outputs.to(at::kFloat)).cpu();
      const at::Tensor targets = micro.targets.cpu();
      for (auto& metric : all) metric->update(scores, targets);
    }
  }
  if (world.size() > 1) {
    at::Tensor sums =
        at::tensor({loss, weight, static_cast<double>(evaluation.samples), bytes}, at::kDouble);
    world.sum(sums);
    const double* total = sums.const_data_ptr<double>();
    loss = total[0], weight = total[1], evaluation.samples = static_cast<int64_t>(total[2]);
    bytes = total[3];
    auto merged = recipe_metrics(parts.recipe, parts.dataset->info());
    for (size_t m = 0; m < all.size(); ++m)
      for (const auto& state : world.gather(all[m]->state())) merged[m]->merge(state);
    all = std::move(merged);
  }
  evaluation.bad_samples = parts.dataset->size(split) - evaluation.samples;
  check_bad_samples(parts, evaluation.bad_samples,
                    fmt::format("the {} set", data::to_string(split)));
  metrics::Result mean{"loss", std::nullopt, "no samples"};
  if (weight > 0) mean.value = loss / weight, mean.why.clear();
  evaluation.results.push_back(mean);
  if (info.is_text) {
    // the loss is in nats per token
    evaluation.predicted = static_cast<int64_t>(weight);
    metrics::Result perplexity = mean, bits = mean;
    perplexity.name = kPerplexity, bits.name = kBitsPerByte;
    if (mean.value) perplexity.value = std::exp(*mean.value);
    bits.value.reset();
    if (bytes > 0)
      bits.value = loss / std::log(2.0) / bytes;
    else if (mean.value)
      bits.why =
          info.token_bytes.defined() ? "no token stands for a byte" : "no tokenizer is known";
    evaluation.results.push_back(perplexity);
    evaluation.results.push_back(bits);
  }
  for (auto& metric : all)
    for (auto& result : metric->compute()) evaluation.results.push_back(result);
  model.train(was_training);
  evaluation.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return evaluation;
}

}  // namespace lehr::run
