// What happens once training is done: choose the weights, test, export, report; also the small
// pieces that the loop shares with `evaluate` and `export`.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/checkpoint/checkpoint.h"
#include "engine/export/huggingface.h"
#include "engine/run/evaluate.h"
#include "engine/run/facts.h"
#include "engine/run/run_folder.h"
#include "engine/track/track.h"

namespace lehr::run {

// Copies `weights` (by parameter name; may be empty) into the model around `work`, then puts the
// model's own back.
void with_weights(models::Model& model, const NamedTensors& weights,
                  const std::function<void()>& work);
// True when export.weights is `ema`: evaluation then looks at the averaged weights.
bool uses_average(const recipe::Recipe& recipe);
// One checkpoint, or the newest that verifies of a run folder or its checkpoints/. Changes nothing
// there. Throws Error{kCheckpoint}.
checkpoint::Loaded load_from(const std::string& path);
// model.pretrained: throws Error{kRecipe} naming every field that differs from its config.json.
void check_pretrained(const recipe::Recipe& recipe, const models::Model& model);
// model.pretrained, or model.init_from: parameters and buffers of another checkpoint (a checkpoint,
// a run or a safetensors file). The lead of the ranks reads and the others hear from it. Throws
// Error{kCheckpoint} on a missing name or another shape.
void initialize_from(const recipe::Recipe& recipe, models::Model& model, dist::World& world);

track::Values row_values(const std::string& prefix, const Evaluation& evaluation);
void print_evaluation(track::Terminal& terminal, const std::string& title,
                      const Evaluation& evaluation, const std::string& note);

struct Finished {
  RunFolder& folder;
  Parts& parts;
  std::shared_ptr<models::Model> model;
  NamedTensors averaged;
  Progress progress;
  double blocked_s;
  int64_t skipped_steps;
  DeviceRuntime* device;
  dist::World& world;
  std::string reason;  // the field that ended it: "training.max_steps"
};
// By all ranks: the lead loads the weights that export.weights names, all evaluate with them; the
// lead writes metrics.json, the artefact, report.html and finished.json.
void finish_run(Finished& finished, track::Terminal& terminal);

// Of a finished run that `recipe` asks for again: a line that says so. Throws Error{kUsage} with
// what differs where it asks for something else: other steps, another model, other data.
std::string nothing_more(const RunFolder& folder, const recipe::Recipe& recipe);

// The model of a run folder (with the weights that its recipe exports) or of a checkpoint folder,
// on the CPU, with its data.
struct Reopened {
  std::shared_ptr<Parts> parts;
  std::shared_ptr<models::Model> model;
  int64_t step = 0;  // that the weights are of
  std::string checkpoint;
};
// `overrides` ("data.train_file=x") of paths of data and of fields that are free to change.
Reopened reopen(const std::string& source, const std::vector<std::string>& overrides = {});
// The model of a Hugging Face folder, on the CPU, which holds no run of ours. Throws
// Error{kCheckpoint} naming what is missing, unknown or does not fit together.
struct Pretrained {
  artefact::Shape shape;
  std::string tokenizer;  // tokenizer.json; "": the folder has none
  recipe::Recipe recipe;  // that says the same
  std::shared_ptr<models::LanguageModel> model;
};
Pretrained open_pretrained(const std::string& folder);
// Makes an artefact of a run folder, a checkpoint folder or a Hugging Face folder; or, with the
// format `huggingface`, a Hugging Face folder of one of the first two.
void export_run(const std::string& source, const std::string& output, track::Terminal& terminal,
                const std::string& format = "artefact",
                const std::vector<std::string>& overrides = {});

}  // namespace lehr::run
