// What a checkpoint says beside its tensors: where training stands, and everything that exactness
// depends on, so that a resume is exact or says what differs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/recipe/recipe.h"

namespace lehr::run {

// Where a training stands at a step boundary.
struct Progress {
  int64_t step = 0, samples = 0;
  double train_seconds = 0;  // over all invocations, evaluation and saving included
  std::string monitored;  // what `best`, `improved` and `monitor` are values of: "loss"; "" where
                          // an older build did not say
  std::optional<double> best;  // so far; none of these is ever NaN or infinite
  int64_t best_step = -1;
  std::optional<double> improved;  // the newest that was better by early_stopping.min_delta
  int64_t bad_evaluations = 0;     // since that
  std::optional<double> monitor;   // at the newest evaluation
  int64_t evaluated_step = -1;     // the newest step at which the validation split was evaluated
  bool evaluation_cut = false;     // that of this step was stopped, and is to be made
  bool ended_early = false;        // by early stopping
  double interval_loss = 0;        // of the logging interval under way
  int64_t interval_samples = 0;
  int64_t bad_samples = 0;       // that the epoch under way has left out
  int64_t most_bad_samples = 0;  // that an epoch has
};

// What must be equal for the same bits, beside the recipe's exact fields.
struct Surroundings {
  std::string build, device, cpu_capability, data;
  int64_t threads = 1, world = 1;
  // of a language model: its logits; 0 of others, and where an earlier release did not say so
  int64_t vocabulary = 0;
};
Surroundings surroundings(const std::string& device, int64_t threads,
                          const std::string& data_fingerprint, int64_t world = 1);

// `recipe_folder`: where the relative paths of the stored recipe start; kept as it is and as seen
// from the run's folder, so that a project may be moved.
std::string facts_json(const Progress& progress, const Surroundings& around,
                       const std::string& step_scalars, const std::string& recipe_folder,
                       const std::string& run_folder);
// Where it may be now, the likelier one first, for a run that lies in `run_folder`.
std::vector<std::string> recipe_folders_of(const std::string& facts_json,
                                           const std::string& run_folder);
// What they were when the checkpoint was made.
Surroundings surroundings_of(const std::string& facts_json);
Progress progress_of(const std::string& facts_json);
std::string step_scalars_of(const std::string& facts_json);
// One line for each thing that breaks exactness: "threads: 2 then, 4 now". The number of ranks is
// not among them: the samples go on exactly, and the loop says what becomes of the bits.
std::vector<std::string> differences(const std::string& facts_json, const Surroundings& now,
                                     const recipe::Recipe& then_recipe,
                                     const recipe::Recipe& now_recipe);

}  // namespace lehr::run
