#include "engine/run/contradictions.h"

#include <fmt/format.h>

#include <functional>
#include <optional>

#include "engine/base/error.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/fields.h"
#include "engine/data/images.h"
#include "engine/export/artefact.h"
#include "engine/metrics/fields.h"
#include "engine/run/evaluate.h"
#include "engine/run/finish.h"
#include "engine/run/plan.h"
#include "engine/step/loss.h"
#include "engine/step/optimizer.h"
#include "engine/step/ranks.h"
#include "engine/step/schedule.h"
#include "engine/track/fields.h"

namespace lehr::run {
namespace {

using recipe::Recipe;

Error refuse(const char* key, const std::string& what, const std::string& hint) {
  return Error(Code::kRecipe, what, key, hint);
}

bool is_text(const Recipe& recipe) {
  const std::string source = recipe.get<data::DataFields>().source;
  return source == "text" || source == "tokens";
}

// nullopt: the data decide
std::optional<bool> has_validation(const Recipe& recipe) {
  const auto data = recipe.get<data::DataFields>();
  if (data.validation_fraction > 0) return true;
  if (data.source == "tokens") {
    if (!recipe.get<data::TokensFields>().validation_tokens.empty()) return true;
    return std::nullopt;  // a folder of shards may hold some out
  }
  // those of another source are empty
  return !recipe.get<data::ArrayFields>().validation_images.empty() ||
         !recipe.get<data::FolderFields>().validation_folder.empty() ||
         !recipe.get<data::FileFields>().validation_file.empty();
}

void check_batch(const Recipe& recipe, int64_t ranks) {
  Plan plan;
  plan_batch(recipe, ranks, plan);
}

void check_length(const Recipe& recipe, int64_t) {
  const auto training = recipe.get<TrainingFields>();
  if (!training.max_steps && !training.max_epochs)
    throw refuse("training.max_epochs", "nothing says how long to train",
                 "give training.max_epochs or training.max_steps");
}

void check_tokens(const Recipe& recipe, int64_t) {
  if (is_text(recipe)) return;
  const std::pair<const char*, Duration> lengths[] = {
      {"checkpoint.interval", recipe.get<checkpoint::CheckpointFields>().interval},
      {"validation.interval", recipe.get<ValidationFields>().interval},
      {"metrics.log_interval", recipe.get<track::TrackFields>().log_interval}};
  for (const auto& [key, length] : lengths)
    if (length.unit == Duration::Unit::kTokens)
      throw refuse(key,
                   fmt::format("`{}` counts tokens, and these data hold none", to_string(length)),
                   "count steps, epochs or samples");
}

void check_pictures(const Recipe& recipe, int64_t) {
  if (recipe.get<data::DataFields>().source == "image_folder") data::picture_view(recipe);
}

// As far as lengths are known without the data.
void check_schedule(const Recipe& recipe, int64_t) {
  const auto schedule = recipe.get<step::ScheduleFields>();
  const auto training = recipe.get<TrainingFields>();
  const auto in_epochs = [](const Duration& d) {
    return d.unit == Duration::Unit::kEpochs && d.value > 0;
  };
  bool epochs = in_epochs(schedule.warmup_steps);
  epochs = epochs || (schedule.step_size && in_epochs(*schedule.step_size));
  for (const auto& drop : schedule.milestones) epochs = epochs || in_epochs(drop);
  if (!epochs && training.max_steps && !training.max_epochs)
    step::Schedule(schedule, *training.max_steps, 0);
}

void check_optimizer(const Recipe& recipe, int64_t) {
  step::check_fields(recipe.get<step::OptimizerFields>());
}

void check_loss(const Recipe& recipe, int64_t) {
  const auto loss = recipe.get<step::LossFields>();
  if (is_text(recipe) && loss.name != "cross_entropy")
    throw refuse("loss.name", "a language model is trained by cross_entropy alone",
                 "write cross_entropy");
  if (is_text(recipe) && !loss.class_weights.empty())
    throw refuse("loss.class_weights", "tokens have no class weights", "remove it");
  step::make_loss(loss);
}

void check_sharing(const Recipe& recipe, int64_t ranks) {
  const auto fields = recipe.get<step::ParallelismFields>();
  const bool fixed = fields.reduction == "fixed_order";
  if (ranks == 1 && !fixed) return;  // nobody to share with
  step::RanksOptions options;
  options.shards = fixed ? fields.logical_shards : 0;
  options.zero_stage = fields.zero_stage;
  options.shard_degree = fields.data_parallel_shard_degree;
  step::check_ranks(options, ranks);
}

void check_averages(const Recipe& recipe, int64_t) {
  const auto decay = recipe.get<step::TrainingFields>().ema_decay;
  if (decay == 1)
    throw refuse("training.ema_decay", "an average that decays by 1 stays at the first weights",
                 "0.999 is usual; null keeps none");
  if (!decay && uses_average(recipe))
    throw refuse("export.weights", "export.weights is ema, but training.ema_decay is not set",
                 "set training.ema_decay, e.g. 0.999, or choose best or last");
}

void check_best(const Recipe& recipe, int64_t) {
  const bool kept = recipe.get<checkpoint::CheckpointFields>().keep_best_k > 0;
  if (kept || recipe.get<artefact::ExportFields>().weights != "best") return;
  if (has_validation(recipe) == false) return;  // the last weights are exported
  throw refuse("checkpoint.keep_best_k",
               "export.weights is best, but checkpoint.keep_best_k: 0 keeps no best checkpoint",
               "keep at least one, or set export.weights: last");
}

void check_layout(const Recipe& recipe, int64_t) {
  const auto fields = recipe.get<artefact::ExportFields>();
  const std::string source = recipe.get<data::DataFields>().source;
  const bool images = source == "idx" || source == "npy" || source == "image_folder";
  if (fields.enabled && fields.layout == "triton" && !images)
    throw refuse("export.layout", "only models of images can be laid out for Triton",
                 "write plain, or set export.enabled: false");
}

void check_start(const Recipe& recipe, int64_t) {
  const auto model = recipe.get<models::ModelFields>();
  const std::string resume = recipe.get<checkpoint::CheckpointFields>().resume;
  if (!model.pretrained.empty() && !model.init_from.empty())
    throw refuse("model.pretrained",
                 "model.pretrained and model.init_from both say where weights start",
                 "give one of them");
  if (resume != "auto" && resume != "never" && !(model.pretrained + model.init_from).empty())
    throw refuse("checkpoint.resume",
                 fmt::format("checkpoint.resume and model.{} both say where weights start",
                             model.pretrained.empty() ? "init_from" : "pretrained"),
                 "give one of them");
}

void check_names(const Recipe& recipe, int64_t) {
  const auto names = recipe.get<metrics::MetricsFields>().names;
  if (is_text(recipe)) {
    if (!names.empty())
      throw refuse("metrics.names", "a language model is measured by perplexity and bits_per_byte",
                   "remove metrics.names");
    return refuse_unknown_monitor(recipe, text_results());
  }
  const std::string loss = recipe.get<step::LossFields>().name;
  const bool classes = loss == "cross_entropy" || loss == "binary_cross_entropy";
  for (const auto& name : names) metrics::check_name(name, classes);
  // without names the number of classes decides
  StringList known{"loss"};
  if (!names.empty())
    known.insert(known.end(), names.begin(), names.end());
  else
    for (const auto& name : metrics::known_names(classes)) known.push_back(name);
  refuse_unknown_monitor(recipe, known);
}

void check_trace(const Recipe& recipe, int64_t) {
  const std::string file = recipe.get<track::ProfilingFields>().file;
  for (const char* own : {"recipe.yaml", "log.txt", "metrics.jsonl", "metrics.json", "report.html",
                          "finished.json", "checkpoints", "artefact", "tensorboard"})
    if (file == own)
      throw refuse("profiling.file", fmt::format("{} is what the run itself writes", file),
                   "give the trace a name of its own, e.g. trace.json");
}

void check_validation(const Recipe& recipe, int64_t) {
  const auto patience = recipe.get<EarlyStoppingFields>().patience;
  if (patience && recipe.get<ValidationFields>().interval.value == 0)
    throw refuse("early_stopping.patience",
                 "validation.interval: 0 evaluates at the end only, so early stopping never comes",
                 "set validation.interval, or early_stopping.patience: null");
  if (has_validation(recipe) == false) check_needs_no_validation(recipe);
}

}  // namespace

void check_needs_no_validation(const Recipe& recipe) {
  const char* hint = "set data.validation_fraction or name a validation set, or leave it out";
  if (recipe.get<EarlyStoppingFields>().patience)
    throw refuse("early_stopping.patience",
                 "early stopping looks at a validation split, and there is none", hint);
  // the defaults ask for nothing
  const auto now = recipe.get<ValidationFields>();
  const ValidationFields usual;
  if (now.interval != usual.interval && now.interval.value > 0)
    throw refuse("validation.interval", "there is no validation split to evaluate", hint);
  if (now.monitor != usual.monitor)
    throw refuse("validation.monitor", "there is no validation split to measure it on", hint);
}

void check_contradictions(const Recipe& recipe, int64_t ranks) {
  std::string all;
  for (auto check : {check_batch, check_length, check_tokens, check_pictures, check_schedule,
                     check_optimizer, check_loss, check_sharing, check_averages, check_best,
                     check_layout, check_start, check_names, check_validation, check_trace}) {
    try {
      check(recipe, ranks);
    } catch (const Error& error) {
      if (error.code() != Code::kRecipe) throw;
      all += (all.empty() ? "" : "\n") + std::string(recipe.placed(error).what());
    }
  }
  if (!all.empty()) throw Error(Code::kRecipe, all);
}

}  // namespace lehr::run
