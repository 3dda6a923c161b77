#include "engine/run/check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "engine/base/cores.h"
#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/fields.h"
#include "engine/export/artefact.h"
#include "engine/run/contradictions.h"
#include "engine/run/evaluate.h"
#include "engine/run/finish.h"
#include "engine/run/micro_batches.h"
#include "engine/run/plan.h"
#include "engine/step/step.h"
#include "models/flops.h"

namespace lehr::run {

using nlohmann::json;

static std::string bytes_text(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 4) bytes /= 1000, ++unit;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

// free bytes where runs will lie; the nearest folder that exists counts
static int64_t free_bytes(const std::string& folder) {
  auto path = std::filesystem::absolute(folder);
  while (!std::filesystem::exists(path) && path.has_parent_path() && path != path.parent_path())
    path = path.parent_path();
  struct statvfs stats = {};
  if (statvfs(path.c_str(), &stats) != 0) return -1;
  return static_cast<int64_t>(stats.f_bavail) * static_cast<int64_t>(stats.f_frsize);
}

// What the samples of one split say that raise an error when they are loaded; those that the data
// set leaves out are not among them.
static StringList load_all(const data::Dataset& set, data::Split split, track::Terminal& terminal) {
  constexpr std::chrono::seconds kBetweenLines(10);
  const int64_t size = set.size(split);
  std::atomic<int64_t> next = 0;
  StringList errors;
  std::mutex mutex;
  std::condition_variable ended;
  size_t working = static_cast<size_t>(usable_cores());
  const auto work = [&] {
    Batch one = set.allocate(1);
    for (int64_t sample; (sample = next++) < size;) try {
        set.fill(split, &sample, 0, 1, /*augment=*/false, 0, 0, one);
      } catch (const Error& error) {
        log_warning(error.what());
        const std::lock_guard lock(mutex);
        errors.push_back(fmt::format("{}: {}", data::to_string(split), error.what()));
      }
    const std::lock_guard lock(mutex);
    if (--working == 0) ended.notify_one();
  };
  std::vector<std::jthread> threads;
  for (size_t i = 0, n = working; i < n; ++i) threads.emplace_back(work);
  std::unique_lock lock(mutex);
  while (!ended.wait_for(lock, kBetweenLines, [&] { return working == 0; }))
    terminal.print(fmt::format("{}: {} of {} samples loaded", data::to_string(split),
                               std::min<int64_t>(next, size), size));
  std::sort(errors.begin(), errors.end());
  return errors;
}

SamplesReport check_samples(const std::string& path, const StringList& overrides,
                            track::Terminal& terminal) {
  recipe::Recipe recipe = load_recipe(path, overrides);
  // all of them are looked at, whatever the recipe says
  std::optional<int64_t> most;
  if (recipe.get<data::DataFields>().source == "image_folder") {
    const auto fields = recipe.get<data::FolderFields>();
    if (fields.bad_samples == "skip") most = fields.max_bad_samples;
    StringList all = overrides;
    all.push_back("data.bad_samples=skip");
    all.push_back(fmt::format("data.max_bad_samples={}", int64_t{1} << 52));
    recipe = load_recipe(path, all);
  }
  const auto set = data::open_dataset(recipe);
  SamplesReport report;
  json out = {{"samples", json::object()}};
  StringList counts, bad;
  int64_t left_out = 0;
  for (auto split : {data::Split::kTrain, data::Split::kValidation, data::Split::kTest}) {
    const StringList errors = load_all(*set, split, terminal);
    bad.insert(bad.end(), errors.begin(), errors.end());
    const int64_t failed = errors.size(), more = set->left_out().size() - left_out;
    left_out += more;
    report.bad += failed + (most && more <= *most ? 0 : more);
    counts.push_back(
        fmt::format("{} of {} {}", failed + more, set->size(split), data::to_string(split)));
    out["samples"][data::to_string(split)] = set->size(split);
  }
  const StringList passed = set->left_out();
  bad.insert(bad.end(), passed.begin(), passed.end());
  out["bad"] = bad;
  report.json = out.dump(2);
  report.text = fmt::format(
      "{}: {} samples do not load{}", path, fmt::join(counts, ", "),
      report.bad == 0 && left_out > 0 ? "; data.bad_samples: skip leaves them out" : "");
  return report;
}

CheckReport check(const recipe::Recipe& recipe, int64_t ranks) try {
  check_contradictions(recipe, ranks);
  Parts parts = open_parts(recipe, ranks);
  const auto& info = parts.dataset->info();
  check_monitor(recipe, info);

  // shapes, parameters and FLOPs on the meta device: no memory, any size of model
  models::ModelContext meta = parts.context;
  meta.options = meta.options.device(at::kMeta);
  auto model = models::make_model(recipe, meta);
  const models::DryRun dry = models::dry_run(*model, meta);
  step::StepContext context;
  context.total_steps = parts.plan.total_steps;
  context.steps_per_epoch = parts.plan.steps_per_epoch;

  // the real model is small enough to make whenever it fits: it shows that optimizer patterns match
  // and that the model exports
  auto real = models::make_model(recipe, parts.context);
  check_pretrained(recipe, *real);
  if (const std::string warning = check_batch_norm(parts, ranks); !warning.empty())
    log_warning(warning);
  step::Step step(real, recipe, context);
  std::string why;
  const auto export_fields = recipe.get<artefact::ExportFields>();
  const bool exports = !export_fields.enabled || artefact::exports(real, info, &why);

  const Plan& plan = parts.plan;
  const int64_t each_rank = (plan.global_batch + ranks - 1) / ranks;
  const step::StepBytes bytes = step::step_bytes(
      recipe, real->parameters(), ranks, (each_rank + plan.micro_batch - 1) / plan.micro_batch);
  const auto parameters = static_cast<double>(dry.parameter_bytes);
  const auto buffers = static_cast<double>(dry.buffer_bytes);
  const double weights = bytes.weights + buffers;
  const double activations = static_cast<double>(dry.activation_bytes_per_sample) *
                             static_cast<double>(parts.plan.micro_batch);
  // of all ranks
  const double checkpoint =
      parameters + buffers + step::step_bytes(recipe, real->parameters()).state;
  const auto checkpoint_fields = recipe.get<checkpoint::CheckpointFields>();
  const double kept = checkpoint * static_cast<double>(checkpoint_fields.keep_latest_k +
                                                       checkpoint_fields.keep_best_k + 1);
  const int64_t free = free_bytes(recipe.get<JobFields>().output_dir);
  if (free >= 0 && kept > static_cast<double>(free))
    throw Error(
        Code::kRecipe,
        fmt::format("checkpoints need {} ({} each), and {} are free in {}", bytes_text(kept),
                    bytes_text(checkpoint), bytes_text(static_cast<double>(free)),
                    recipe.get<JobFields>().output_dir),
        recipe.where("checkpoint.keep_latest_k"), "keep fewer, or set job.output_dir elsewhere");
  if (!exports)
    throw Error(Code::kRecipe, "the model cannot be exported: " + why, recipe.where("model.name"),
                "set export.enabled: false to train it all the same");

  const double flops =
      3 * dry.flops_per_sample_forward * static_cast<double>(parts.plan.global_batch);
  json out = {{"recipe", recipe.path()},
              {"hash", recipe.hash()},
              {"samples",
               {{"train", parts.dataset->size(data::Split::kTrain)},
                {"validation", parts.dataset->size(data::Split::kValidation)},
                {"test", parts.dataset->size(data::Split::kTest)}}},
              {"classes", info.classes},
              {"remarks", parts.dataset->remarks()},
              {"parameters", dry.parameters},
              {"flops_per_step", flops},
              {"steps", plan.total_steps},
              {"steps_per_epoch", plan.steps_per_epoch},
              {"global_batch", plan.global_batch},
              {"micro_batch", plan.micro_batch},
              {"ranks", ranks},
              {"memory_bytes",
               {{"weights", weights},
                {"gradients", bytes.gradients},
                {"optimizer", bytes.state},
                {"activations", activations},
                {"total", weights + bytes.gradients + bytes.state + activations}}},
              {"checkpoint_bytes", checkpoint},
              {"free_bytes", free},
              {"exports", export_fields.enabled}};
  CheckReport report;
  report.json = out.dump(2);
  const std::string input =
      info.is_text
          ? fmt::format("text of {} kinds of tokens, {} at a time", info.vocabulary, info.context)
      : info.is_image ? fmt::format("images {} x {} x {}", info.channels, info.height, info.width)
                      : fmt::format("table of {} features", info.features);
  report.text = fmt::format(
      "{}: no mistakes found\n"
      "  data        {}; {} training, {} validation, {} test samples\n"
      "  model       {}: {} parameters, {} output(s)\n"
      "  training    {} steps of {} samples (micro-batch {}), {} steps an epoch\n"
      "  work        {:.3g} FLOP a step (forward x 3)\n"
      "  memory      {}{} = weights {} + gradients {} + optimizer {} + activations {} (estimate)\n"
      "  checkpoint  {} each; {} free\n"
      "  export      {}",
      recipe.path(), input, parts.dataset->size(data::Split::kTrain),
      parts.dataset->size(data::Split::kValidation), parts.dataset->size(data::Split::kTest),
      recipe.get<models::ModelFields>().name, dry.parameters, parts.context.outputs,
      plan.total_steps, plan.global_batch, plan.micro_batch, plan.steps_per_epoch, flops,
      ranks > 1 ? fmt::format("of each of {} ranks ", ranks) : "",
      bytes_text(weights + bytes.gradients + bytes.state + activations), bytes_text(weights),
      bytes_text(bytes.gradients), bytes_text(bytes.state), bytes_text(activations),
      bytes_text(checkpoint), bytes_text(static_cast<double>(free)),
      export_fields.enabled ? "traces" : "off");
  for (const auto& line : parts.dataset->remarks()) report.text += "\n  found       " + line;
  return report;
} catch (const Error& error) {
  throw recipe.placed(error);
}

}  // namespace lehr::run
