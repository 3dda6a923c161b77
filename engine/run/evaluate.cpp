#include "engine/run/evaluate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/pulse.h"
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

using Clock = std::chrono::steady_clock;

// A value that is not finite is none: nothing compares with it.
metrics::Result number(const char* name, double value) {
  if (std::isfinite(value)) return {name, value, ""};
  return {name, std::nullopt, std::isnan(value) ? "it is not a number" : "it is infinite"};
}

class Evaluating {
 public:
  explicit Evaluating(models::Model& model) : model_(model), was_training_(model.is_training()) {
    model.train(false);
  }
  ~Evaluating() { model_.train(was_training_); }
  Evaluating(const Evaluating&) = delete;
  Evaluating& operator=(const Evaluating&) = delete;

 private:
  models::Model& model_;
  const bool was_training_;
};

// Before every batch but the first; ranks ask each other about once a second by the lead's clock.
class Stopping {
 public:
  Stopping(dist::World& world, const std::function<bool()>& ask) : world_(world), ask_(ask) {}
  bool now() {
    const int64_t done = batches_++;
    if (!ask_ || done < next_) return false;
    if (world_.size() == 1) return ask_();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    at::Tensor said =
        at::tensor({ask_() ? 1.0 : 0.0, world_.is_lead() ? seconds : 0.0}, at::kDouble);
    world_.sum(said);
    const double* all = said.const_data_ptr<double>();
    const double rate = static_cast<double>(done) / std::max(all[1], 1e-6);
    next_ = done + std::max<int64_t>(1, static_cast<int64_t>(rate));
    return all[0] > 0;
  }

 private:
  dist::World& world_;
  const std::function<bool()>& ask_;
  const Clock::time_point begin_ = Clock::now();
  int64_t batches_ = 0, next_ = 1;
};

// The lead's metric gets what all have seen: pairs of neighbours, then pairs of pairs, the first of
// each taking in what the second has, in the order of the ranks.
void merge_to_lead(dist::World& world, metrics::Metric& metric) {
  const int rank = world.rank();
  for (int apart = 1; apart < world.size(); apart *= 2) {
    const bool takes = rank % (2 * apart) == 0, gives = rank % (2 * apart) == apart;
    const int other = takes ? rank + apart : rank - apart;
    const int partner = (takes || gives) && other < world.size() ? other : rank;
    const at::Tensor mine =
        takes || partner == rank ? at::empty({0}, at::kDouble) : metric.state().contiguous();
    const at::Tensor length = at::full({1}, mine.numel(), at::kLong), theirs = length.clone();
    world.exchange(length, theirs, partner);
    // both sides of an exchange give as much
    const int64_t most = std::max(mine.numel(), theirs.item<int64_t>());
    const at::Tensor sent = at::zeros({most}, at::kDouble), got = at::zeros({most}, at::kDouble);
    sent.slice(0, 0, mine.numel()).copy_(mine.view({-1}));
    world.exchange(sent, got, partner);
    if (takes && partner != rank) metric.merge(got.slice(0, 0, theirs.item<int64_t>()));
  }
}

// What the lead's metrics give, on all ranks, bit for bit.
std::vector<metrics::Result> results_of_lead(
    dist::World& world, const std::vector<std::unique_ptr<metrics::Metric>>& all) {
  std::vector<metrics::Result> results;
  nlohmann::json said = nlohmann::json::array();
  if (world.is_lead())
    for (const auto& metric : all)
      for (auto& result : metric->compute()) {
        said.push_back({result.name, result.value.has_value(),
                        std::bit_cast<uint64_t>(result.value.value_or(0)), result.why});
        results.push_back(std::move(result));
      }
  if (world.size() == 1) return results;
  said = nlohmann::json::parse(world.broadcast_text(said.dump()));
  if (world.is_lead()) return results;
  for (const auto& one : said) {
    metrics::Result result{one.at(0), std::nullopt, one.at(3)};
    if (one.at(1)) result.value = std::bit_cast<double>(one.at(2).get<uint64_t>());
    results.push_back(std::move(result));
  }
  return results;
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
                    DeviceRuntime* device, dist::World& world, const std::function<bool()>& stop) {
  const auto begin = Clock::now();
  at::NoGradGuard no_grad;
  const Evaluating evaluating(model);
  data::LoaderOptions options = data::loader_options(parts.recipe);
  options.split = split;
  options.micro_batch = parts.recipe.get<ValidationFields>().batch_size;
  options.global_batch = options.micro_batch * world.size();
  options.shuffle = options.augment = options.drop_last = false;
  options.one_pass = true;
  options.device = device;
  options.rank = world.rank(), options.world = world.size();
  data::Loader loader(parts.dataset, options);
  auto all = recipe_metrics(parts.recipe, parts.dataset->info());
  const data::DataInfo& info = parts.dataset->info();
  Evaluation evaluation;
  const std::function<bool()> ask = [&] { return evaluation.error || stop(); };
  Stopping stopping(world, stop ? ask : nullptr);
  // the data's errors stop an evaluation as `stop` does
  const auto keep_error = [&](const auto& work) {
    try {
      work();
    } catch (...) {
      if (!stop) throw;
      evaluation.error = std::current_exception();
    }
  };
  double loss = 0, weight = 0, bytes = 0;
  for (int64_t left = loader.steps_per_epoch(); left > 0; --left) {
    data::StepBatch batch;
    // a rank that has one still meets the others before their batches
    if (!evaluation.error) keep_error([&] { batch = loader.next(); });
    if (stopping.now()) {
      evaluation.stopped = true;
      return evaluation;
    }
    for (const Batch& micro : batch.micro) {
      const step::Evaluated batch_loss = step::evaluate_batch(parts.recipe, model, micro);
      loss += batch_loss.sum, weight += batch_loss.weight;
      evaluation.samples += micro.size();
      if (info.token_bytes.defined()) bytes += bytes_of(info.token_bytes, micro.targets);
      if (!std::isfinite(batch_loss.sum) && evaluation.non_finite.empty())
        evaluation.non_finite = step::first_non_finite(parts.recipe, model, micro);
      get_on();
      if (all.empty()) continue;
      const at::Tensor scores =
          step::to_scores(parts.recipe, batch_loss.outputs.to(at::kFloat)).cpu();
      const at::Tensor& targets = micro.targets_to_count();
      for (auto& metric : all) metric->update(scores, targets);
    }
  }
  double errors = evaluation.error ? 1 : 0;
  if (world.size() > 1) {
    at::Tensor sums = at::tensor(
        {loss, weight, static_cast<double>(evaluation.samples), bytes, errors}, at::kDouble);
    world.sum(sums);
    const double* total = sums.const_data_ptr<double>();
    loss = total[0], weight = total[1], evaluation.samples = static_cast<int64_t>(total[2]);
    bytes = total[3], errors = total[4];
  }
  evaluation.stopped = errors > 0;
  if (evaluation.stopped) return evaluation;
  if (world.size() > 1) {
    for (auto& metric : all) merge_to_lead(world, *metric);
    if (!std::isfinite(loss))
      for (const auto& own : world.gather_text(evaluation.non_finite))
        if (!own.empty()) evaluation.non_finite = own;
  }
  evaluation.bad_samples = parts.dataset->size(split) - evaluation.samples;
  keep_error([&] {
    check_bad_samples(parts, evaluation.bad_samples,
                      fmt::format("the {} set", data::to_string(split)));
  });
  evaluation.stopped = evaluation.error != nullptr;
  if (evaluation.stopped) return evaluation;
  if (!evaluation.non_finite.empty())
    evaluation.non_finite += fmt::format(" of the {} split", data::to_string(split));
  evaluation.results.push_back(weight > 0 ? number("loss", loss / weight)
                                          : metrics::Result{"loss", std::nullopt, "no samples"});
  if (info.is_text) {
    // the loss is in nats per token
    evaluation.predicted = static_cast<int64_t>(weight);
    metrics::Result perplexity = evaluation.results[0], bits = perplexity;
    perplexity.name = kPerplexity, bits.name = kBitsPerByte;
    if (const auto mean = perplexity.value) {
      perplexity = number(kPerplexity, std::exp(*mean));
      bits.value.reset();
      if (bytes > 0)
        bits = number(kBitsPerByte, loss / std::log(2.0) / bytes);
      else
        bits.why =
            info.token_bytes.defined() ? "no token stands for a byte" : "no tokenizer is known";
    }
    evaluation.results.push_back(perplexity);
    evaluation.results.push_back(bits);
  }
  for (auto& result : results_of_lead(world, all)) evaluation.results.push_back(result);
  evaluation.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return evaluation;
}

}  // namespace lehr::run
