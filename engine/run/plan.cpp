#include "engine/run/plan.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "engine/base/cores.h"
#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/fields.h"
#include "engine/data/tokenizer.h"
#include "engine/export/huggingface.h"
#include "engine/metrics/metrics.h"
#include "engine/run/contradictions.h"
#include "engine/step/step.h"

namespace lehr::run {

static void solve_batch(const TrainingFields& training, int64_t world, Plan& plan) {
  const auto& global = training.global_batch_size;
  const auto& micro = training.micro_batch_size;
  const auto& accumulation = training.gradient_accumulation_steps;
  if (global && micro && accumulation) {
    if (*global != *micro * *accumulation * world)
      throw Error(
          Code::kRecipe,
          fmt::format("{} is not micro_batch_size {} x gradient_accumulation_steps {} x {} "
                      "rank(s) = {}",
                      *global, *micro, *accumulation, world, *micro * *accumulation * world),
          "training.global_batch_size", "give two of the three; the third follows");
    plan.global_batch = *global, plan.micro_batch = *micro;
  } else if (global) {
    plan.global_batch = *global;
    int64_t share = (*global + world - 1) / world;
    plan.micro_batch = micro          ? *micro
                       : accumulation ? (share + *accumulation - 1) / *accumulation
                                      : share;
    if (accumulation && share % *accumulation != 0)
      throw Error(Code::kRecipe,
                  fmt::format("a rank's {} samples of a step do not divide into {} micro-batches",
                              share, *accumulation),
                  "training.gradient_accumulation_steps",
                  "choose a divisor, or give micro_batch_size instead");
    if (plan.micro_batch > share)
      throw Error(
          Code::kRecipe,
          fmt::format("{} is more than a rank's {} samples of a step", plan.micro_batch, share),
          "training.micro_batch_size", "raise global_batch_size or lower micro_batch_size");
  } else if (micro) {
    plan.micro_batch = *micro;
    plan.global_batch = *micro * accumulation.value_or(1) * world;
  } else {
    throw Error(Code::kRecipe, "is missing", "training.global_batch_size",
                "say how many samples make one optimizer step, e.g. global_batch_size: 128");
  }
}

void plan_batch(const recipe::Recipe& recipe, int64_t world, Plan& plan) {
  const auto training = recipe.get<TrainingFields>();
  const auto parallelism = recipe.get<step::ParallelismFields>();
  if (parallelism.reduction != "fixed_order") return solve_batch(training, world, plan);
  // a micro-batch is a logical shard, whatever rank computes it
  plan.shards = parallelism.logical_shards;
  if (training.micro_batch_size || training.gradient_accumulation_steps)
    throw Error(Code::kRecipe,
                "under parallelism.reduction: fixed_order the logical shards are the micro-batches",
                training.micro_batch_size ? "training.micro_batch_size"
                                          : "training.gradient_accumulation_steps",
                "remove it; global_batch_size and parallelism.logical_shards say all");
  solve_batch(training, 1, plan);
  plan.micro_batch = (plan.global_batch + plan.shards - 1) / plan.shards;
}

// Nobody takes so many steps, and their samples can still be counted.
constexpr double kEndless = 1e12;

int64_t whole_steps(double steps) { return std::llround(std::min(steps, kEndless)); }

int64_t in_steps(const Duration& d, const Plan& plan) {
  switch (d.unit) {
    case Duration::Unit::kSteps:
      return whole_steps(d.value);
    case Duration::Unit::kEpochs:
      return std::max<int64_t>(d.value > 0,
                               whole_steps(d.value * static_cast<double>(plan.steps_per_epoch)));
    case Duration::Unit::kSamples:
      return whole_steps(std::ceil(d.value / static_cast<double>(plan.global_batch)));
    case Duration::Unit::kTokens:
      return whole_steps(
          std::ceil(d.value / static_cast<double>(plan.context * plan.global_batch)));
    default:
      return 0;
  }
}

bool larger_is_better(const ValidationFields& validation) {
  if (validation.mode != "auto") return validation.mode == "max";
  return metrics::larger_is_better(validation.monitor);
}

Plan make_plan(const recipe::Recipe& recipe, const data::Dataset& dataset, int64_t world) {
  auto training = recipe.get<TrainingFields>();
  auto validation = recipe.get<ValidationFields>();
  auto checkpoint = recipe.get<checkpoint::CheckpointFields>();
  auto data = recipe.get<data::DataFields>();
  Plan plan;
  plan_batch(recipe, world, plan);
  int64_t size = dataset.size(data::Split::kTrain);
  if (size == 0)
    throw Error(Code::kData, "the training split is empty",
                recipe.where("data.validation_fraction"), "lower data.validation_fraction");
  if (data.drop_last) {
    plan.steps_per_epoch = size / plan.global_batch;
    plan.samples_per_epoch = plan.steps_per_epoch * plan.global_batch;
    if (plan.steps_per_epoch == 0)
      throw Error(
          Code::kRecipe,
          fmt::format("training.global_batch_size {} is more than the {} training samples, and "
                      "data.drop_last drops the only batch",
                      plan.global_batch, size),
          recipe.where("training.global_batch_size"), "lower it, or set data.drop_last: false");
  } else {
    plan.steps_per_epoch = (size + plan.global_batch - 1) / plan.global_batch;
    plan.samples_per_epoch = size;
  }
  // the first limit reached wins
  int64_t limit = -1;
  if (training.max_steps) limit = *training.max_steps;
  if (training.max_epochs) {
    const int64_t steps =
        whole_steps(*training.max_epochs * static_cast<double>(plan.steps_per_epoch));
    if (steps == 0 && *training.max_epochs > 0)
      throw Error(Code::kRecipe,
                  fmt::format("{} of {} steps an epoch is no step", *training.max_epochs,
                              plan.steps_per_epoch),
                  "training.max_epochs",
                  "raise it; training.max_steps: 0 exports a model that was never trained");
    limit = limit < 0 ? steps : std::min(limit, steps);
  }
  plan.total_steps = limit;
  if (dataset.size(data::Split::kValidation) == 0) check_needs_no_validation(recipe);
  if (dataset.info().is_text) plan.context = dataset.info().context;
  plan.validation_steps = in_steps(validation.interval, plan);
  plan.checkpoint_steps = in_steps(checkpoint.interval, plan);
  if (checkpoint.interval.unit == Duration::Unit::kSeconds)
    plan.checkpoint_s = checkpoint.interval.value;
  plan.larger_is_better = larger_is_better(validation);
  return plan;
}

// A Hugging Face folder may have more rows than tokens. Where it is gone, a run that was begun from
// it knows better.
static int64_t logits_of(const recipe::Recipe& recipe, const data::DataInfo& info) {
  const std::string folder = recipe.get<models::ModelFields>().pretrained;
  if (folder.empty() || !artefact::is_huggingface(folder)) return info.vocabulary;
  const int64_t rows = artefact::read_huggingface_config(folder).vocabulary;
  if (rows <= info.vocabulary) return info.vocabulary;  // fewer are refused with the other fields
  if (const std::string own = join_path(folder, "tokenizer.json"); file_exists(own)) {
    const int64_t tokens = data::make_tokenizer({"bpe", own}, "", own)->vocabulary();
    if (tokens != info.vocabulary)
      throw Error(Code::kRecipe,
                  fmt::format("the data's tokenizer has {} tokens, and that of {} has {}",
                              info.vocabulary, folder, tokens),
                  recipe.where("model.pretrained"),
                  fmt::format("set data.tokenizer: bpe and data.tokenizer_file: {}, or make the "
                              "token shards with it",
                              own));
  }
  return rows;
}

Parts open_parts(const recipe::Recipe& recipe, int64_t world, int64_t vocabulary) try {
  Parts parts{recipe, data::open_dataset(recipe), {}, {}};
  const auto& info = parts.dataset->info();
  parts.plan = make_plan(recipe, *parts.dataset, world);
  parts.context.channels = info.channels;
  parts.context.height = info.height;
  parts.context.width = info.width;
  parts.context.features = info.features;
  parts.context.vocabulary = !info.is_text    ? 0
                             : vocabulary > 0 ? vocabulary
                                              : logits_of(recipe, info);
  parts.context.context = info.context;
  parts.context.outputs = step::output_count(
      recipe, info.is_text ? parts.context.vocabulary : static_cast<int64_t>(info.classes.size()),
      info.values);
  parts.context.options = at::TensorOptions().dtype(at::kFloat);
  parts.context.seed = static_cast<uint64_t>(recipe.get<TrainingFields>().seed);
  return parts;
} catch (const Error& error) {
  throw recipe.placed(error);
}

std::string choose_device(const TrainingFields& training, DeviceRuntime** runtime) {
  *runtime = nullptr;
  if (training.device == "cpu") return "cpu";
  if ((*runtime = registered_device(training.device))) return training.device;
  std::string why;
  if (!gpu_present(&why)) {
    if (training.device == "cuda")
      throw Error(Code::kUsage, "training.device is cuda, but " + why, "",
                  "set training.device: cpu, or see lehr doctor");
    return "cpu";
  }
  if (training.device == "auto" && cuda_library_path().empty()) return "cpu";
  *runtime = load_cuda();
  return "cuda";
}

int64_t settle_numerics(const TrainingFields& training, int64_t ranks_here) {
  int64_t threads =
      training.threads > 0 ? training.threads : std::max<int64_t>(1, usable_cores() / ranks_here);
  at::set_num_threads(static_cast<int>(threads));
  // all of it, also what another run of this process may have set
  auto& context = at::globalContext();
  context.setDeterministicCuDNN(training.deterministic);
  context.setBenchmarkCuDNN(false);
  context.setDeterministicAlgorithms(training.deterministic, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
  context.setAllowTF32CuBLAS(training.tf32);
  context.setAllowTF32CuDNN(training.tf32);
  return threads;
}

recipe::Recipe stored_recipe(const std::string& text, const std::string& origin,
                             const std::vector<std::string>& overrides,
                             const std::optional<std::string>& folder) {
  auto recipe = recipe::Recipe::parse_stored(text, origin, overrides, all_sections(), folder);
  if (!recipe.left_out().empty())
    log_warning(fmt::format("{} is of an earlier release; left out of it: {}", origin,
                            fmt::join(recipe.left_out(), ", ")));
  return recipe;
}

recipe::Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  return recipe::Recipe::load(path, overrides, all_sections());
}

}  // namespace lehr::run
