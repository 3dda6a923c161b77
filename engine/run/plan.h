// What a recipe means for this data set and this machine, in numbers: batch, steps, intervals,
// device.
#pragma once

#include <memory>
#include <string>

#include "engine/base/device.h"
#include "engine/data/dataset.h"
#include "engine/recipe/recipe.h"
#include "engine/run/fields.h"
#include "models/model.h"

namespace lehr::run {

struct Plan {
  int64_t global_batch = 1, micro_batch = 1;
  int64_t shards = 0;   // logical ones, under fixed_order
  int64_t context = 1;  // tokens of a sample of text
  int64_t samples_per_epoch = 0, steps_per_epoch = 0, total_steps = 0;
  int64_t validation_steps = 0;  // 0: only at the end
  int64_t checkpoint_steps = 0;  // 0: not by steps
  double checkpoint_s = 0;       // 0: not by time
  bool larger_is_better = false;
};

// The batch on `world` ranks: two of (global, micro, accumulation) give the third, a contradiction
// names all three; under fixed_order a micro-batch is a logical shard. Throws Error{kRecipe}.
void plan_batch(const recipe::Recipe& recipe, int64_t world, Plan& plan);
// Steps of a duration, at least one unless it is 0; seconds are not steps (returns 0).
int64_t in_steps(const Duration& duration, const Plan& plan);
bool larger_is_better(const ValidationFields& validation);
Plan make_plan(const recipe::Recipe& recipe, const data::Dataset& dataset, int64_t world);

// The parts of a run that `train`, `check`, `evaluate` and `export` share.
struct Parts {
  recipe::Recipe recipe;
  std::shared_ptr<data::Dataset> dataset;
  Plan plan;
  models::ModelContext context;
};
// Opens data and plans; no weights are made. `vocabulary`: the logits of a language model whose
// weights are there already; 0: as many as tokens, or as model.pretrained has.
Parts open_parts(const recipe::Recipe& recipe, int64_t world = 1, int64_t vocabulary = 0);

// "cpu", "cuda", or one that was registered, for training.device; loads the CUDA half when it is
// "cuda". Must run before any ATen call. Throws Error{kUsage} when a GPU is demanded and there is
// none.
std::string choose_device(const TrainingFields& training, DeviceRuntime** runtime);
// Threads of ATen, determinism and TF32 for all of the process. `threads` 0: the cores, shared by
// the ranks of this node.
int64_t settle_numerics(const TrainingFields& training, int64_t ranks_here = 1);

// A recipe that a checkpoint, run or artefact holds, of this release or another; what of it is gone
// is warned of. `folder` is where its relative paths start, `origin` the file's name in errors.
recipe::Recipe stored_recipe(const std::string& text, const std::string& origin,
                             const std::vector<std::string>& overrides = {},
                             const std::optional<std::string>& folder = std::nullopt);
recipe::Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace lehr::run
