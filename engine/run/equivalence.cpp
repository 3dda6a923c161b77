#include "engine/run/equivalence.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/run/plan.h"
#include "engine/run/spawn.h"
#include "engine/step/fields.h"

namespace lehr::run {
namespace {

constexpr double kBound = 1e-3;

struct Outcome {
  std::vector<double> losses;
  std::vector<float> weights;  // in the order of the file
  bool batch_statistics = false;
};

Outcome outcome_of(const std::string& run, bool with_statistics) {
  Outcome outcome;
  std::istringstream rows(read_file(join_path(run, "metrics.jsonl")));
  for (std::string line; std::getline(rows, line);)
    // none where every step of a row was skipped
    outcome.losses.push_back(nlohmann::json::parse(line).value("train.loss", double{NAN}));
  auto loaded = checkpoint::newest(join_path(run, "checkpoints"), [](const std::string&) {});
  if (!loaded) throw Error(Code::kCheckpoint, "the run left no checkpoint", run);
  for (const auto& tensor : loaded->shards.at("weights")->tensors()) {
    const bool statistics = tensor.name.find("running_") != std::string::npos;
    outcome.batch_statistics = outcome.batch_statistics || statistics;
    if (tensor.dtype != "F32" || (statistics && !with_statistics)) continue;
    const size_t before = outcome.weights.size();
    outcome.weights.resize(before + tensor.bytes / sizeof(float));
    std::memcpy(outcome.weights.data() + before, tensor.data, tensor.bytes);
  }
  return outcome;
}

double loss_difference(const Outcome& a, const Outcome& b) {
  if (a.losses.size() != b.losses.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.losses.size(); ++i) {
    const double gap = std::abs(a.losses[i] - b.losses[i]) / std::max(std::abs(a.losses[i]), 1e-12);
    if (std::isnan(gap)) return INFINITY;
    largest = std::max(largest, gap);
  }
  return largest;
}

double weight_difference(const Outcome& a, const Outcome& b) {
  if (a.weights.size() != b.weights.size()) return INFINITY;
  double gap = 0, largest = 1e-30;
  for (size_t i = 0; i < a.weights.size(); ++i) {
    if (std::isnan(a.weights[i]) || std::isnan(b.weights[i])) return INFINITY;
    gap = std::max(gap, std::abs(double{a.weights[i]} - b.weights[i]));
    largest = std::max(largest, std::abs(double{a.weights[i]}));
  }
  return gap / largest;
}

}  // namespace

bool equivalence(const EquivalenceRequest& request, track::Terminal& terminal) {
  const recipe::Recipe recipe = load_recipe(request.recipe, request.overrides);
  const bool fixed = recipe.get<step::ParallelismFields>().reduction == "fixed_order";
  // these runs are shorter than most warm-ups
  const bool warms_up = recipe.get<step::ScheduleFields>().warmup_steps.value > 0;
  make_folders(request.folder);
  const std::string log = join_path(request.folder, "log.txt");
  const auto run = [&](int ranks, int accumulate) {
    const std::string folder =
        join_path(request.folder, fmt::format("ranks-{}-accumulate-{}", ranks, accumulate));
    std::vector<std::string> words{request.program, "launch", "-n",  std::to_string(ranks),
                                   request.recipe,  "--run",  folder};
    std::vector<std::string> overrides = request.overrides;
    overrides.insert(
        overrides.end(),
        {fmt::format("training.max_steps={}", request.steps), "training.max_epochs=null",
         "training.threads=1", "export.enabled=false", "validation.interval=0",
         "early_stopping.patience=null", "checkpoint.interval=1000000", "metrics.log_interval=1",
         "metrics.report_to=[]"});
    if (warms_up)
      overrides.push_back(fmt::format("lr_scheduler.warmup_steps={}", request.steps / 2));
    if (!fixed) {
      overrides.push_back(fmt::format("training.gradient_accumulation_steps={}", accumulate));
      overrides.push_back("training.micro_batch_size=null");
    }
    for (const auto& value : overrides) words.insert(words.end(), {"--set", value});
    finish(spawn(words, log), log);
    // batch statistics are those of k micro-batches or k shards, the same in fixed order alone
    return outcome_of(folder, fixed);
  };
  const Outcome base = run(1, 1);
  bool good = true;
  std::vector<std::vector<std::string>> rows;
  for (int ranks : request.ranks)
    for (int accumulate : fixed ? std::vector<int>{1} : request.accumulate) {
      const bool is_base = ranks == 1 && accumulate == 1;
      const Outcome other = is_base ? base : run(ranks, accumulate);
      const double loss = loss_difference(base, other), weights = weight_difference(base, other);
      const bool bounded = fixed || !base.batch_statistics;
      const double bound = fixed ? 0 : kBound;
      const bool met = !bounded || (loss <= bound && weights <= bound);
      good = good && met;
      rows.push_back({std::to_string(ranks), fixed ? "-" : std::to_string(accumulate),
                      fmt::format("{:.2g}", loss), fmt::format("{:.2g}", weights),
                      bounded ? fmt::format("{:g}", bound) : "none: batch statistics",
                      met ? "met" : "MISSED"});
    }
  terminal.table({"ranks", "micro-batches", "loss", "weights", "bound", ""}, rows);
  if (good)
    remove_tree(request.folder);
  else
    terminal.print("the runs are in " + request.folder);
  return good;
}

}  // namespace lehr::run
