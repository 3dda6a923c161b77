#include "engine/run/fields.h"

#include "engine/base/device.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/dataset.h"
#include "engine/export/artefact.h"
#include "engine/metrics/fields.h"
#include "engine/step/step.h"
#include "engine/track/fields.h"
#include "models/model.h"
#include "models/recompute.h"

namespace lehr::run {

Section JobFields::section() {
  Declare<JobFields> d("job", "What this run is called and how long one invocation may take.");
  d.field("name", &JobFields::name,
          "Name of the run's folder, which a number follows; the recipe's file name by default.")
      .names(NameRule::kNested)
      .synonyms({"run_name", "experiment_name"})
      .free_to_change();
  d.field("description", &JobFields::description, "A sentence for the report.").free_to_change();
  d.field("output_dir", &JobFields::output_dir,
          "Folder in which run folders are made, relative to the working folder.")
      .synonyms({"dump_folder", "save_folder", "default_root_dir"})
      .free_to_change();
  d.field("time_limit", &JobFields::time_limit,
          "Time of one invocation: save, leave with exit code 75, continue by the same command.")
      .units(kTime)
      .free_to_change();
  d.field("max_restarts", &JobFields::max_restarts,
          "How often `lehr launch` begins all ranks again from the newest checkpoint after one "
          "failed.")
      .at_least(0)
      .free_to_change();
  return d.section();
}

Section TrainingFields::section() {
  Declare<TrainingFields> d("training", "How long and with what batch to train, and on what.");
  d.field("global_batch_size", &TrainingFields::global_batch_size,
          "Samples in one optimizer step over all ranks; two of the three batch fields give the "
          "third.")
      .at_least(1)
      .unit("samples")
      .synonyms({"train_batch_size", "effective_batch_size", "global_train_batch_size",
                 "batch_size", "batchsize"});
  d.field("micro_batch_size", &TrainingFields::micro_batch_size,
          "Samples in one forward pass on one rank; all of the rank's share by default.")
      .at_least(1)
      .unit("samples")
      .synonyms({"per_device_train_batch_size", "local_batch_size", "device_train_microbatch_size",
                 "train_micro_batch_size_per_gpu"});
  d.field("gradient_accumulation_steps", &TrainingFields::gradient_accumulation_steps,
          "Micro-batches added up for one optimizer step.")
      .at_least(1)
      .synonyms({"accumulate_grad_batches", "grad_accumulation"});
  d.field("max_steps", &TrainingFields::max_steps,
          "Optimizer steps to take; the first limit reached wins.")
      .at_least(0)
      .unit("steps")
      .synonyms({"max_iter", "train_steps", "total_steps", "steps"});
  d.field("max_epochs", &TrainingFields::max_epochs, "Passes over the training data.")
      .at_least(0)
      .unit("epochs")
      .synonyms({"epochs", "num_epochs", "num_train_epochs", "max_duration"});
  d.field("max_time", &TrainingFields::max_time,
          "Training ends for good after this time, counted over all invocations.")
      .units(kTime)
      .above(0)
      .free_to_change();
  d.field("device", &TrainingFields::device, "Where to train; auto takes a GPU when there is one.")
      .choices(device_names())
      .synonyms({"accelerator"});
  d.field("threads", &TrainingFields::threads,
          "Threads of the step on a CPU; 0 takes every core. Part of what exactness depends on.")
      .range(0, 1024);
  d.field("seed", &TrainingFields::seed, "Seed of weights, order, augmentation and dropout.")
      .at_least(0)
      .synonyms({"random_seed"});
  d.field("deterministic", &TrainingFields::deterministic,
          "Only algorithms that repeat bit for bit; the CPU always does.")
      .synonyms({"full_determinism", "deterministic_mode"});
  d.field("tf32", &TrainingFields::tf32,
          "Lets a GPU multiply float32 in TF32: about three digits, and up to eight times as fast.")
      .synonyms({"allow_tf32", "float32_matmul_precision"});
  return d.section();
}

Section ValidationFields::section() {
  Declare<ValidationFields> d("validation",
                              "When to evaluate on the validation split, and what counts.");
  d.field("interval", &ValidationFields::interval,
          "How often to evaluate, after the last step in any case; 0 only then.")
      .units(kLengths, "results would depend on the machine")
      .synonyms(
          {"eval_interval", "eval_steps", "freq", "val_check_interval", "run_val_every_n_steps"});
  d.field("monitor", &ValidationFields::monitor,
          "Metric by which checkpoints are called best and early stopping decides.")
      .synonyms({"metric_for_best_model", "validation_metric"})
      .free_to_change();
  d.field("mode", &ValidationFields::mode,
          "Whether a larger or a smaller monitor is better; auto knows.")
      .choices({"auto", "min", "max"})
      .synonyms({"greater_is_better"})
      .free_to_change();
  d.field("batch_size", &ValidationFields::batch_size, "Samples per forward pass of an evaluation.")
      .at_least(1)
      .unit("samples")
      .synonyms({"eval_batch_size", "per_device_eval_batch_size"});
  return d.section();
}

Section EarlyStoppingFields::section() {
  Declare<EarlyStoppingFields> d("early_stopping",
                                 "Ends training when the monitor no longer improves.");
  d.field("patience", &EarlyStoppingFields::patience,
          "Evaluations without improvement before training ends; null never ends it.")
      .at_least(1)
      .synonyms({"early_stopping_patience", "early_stop"})
      .free_to_change();
  d.field("min_delta", &EarlyStoppingFields::min_delta,
          "Smallest change that counts as improvement for patience; the best is the best by any.")
      .at_least(0)
      .free_to_change();
  return d.section();
}

std::vector<Section> all_sections() {
  std::vector<Section> sections;
  auto add = [&](std::vector<Section> more) {
    for (auto& section : more) sections.push_back(std::move(section));
  };
  add({JobFields::section(), models::ModelFields::section()});
  for (const auto& entry : models::registry()) sections.push_back(entry.section());
  add({models::RecomputeFields::section()});
  add(data::sections());
  add(step::sections());
  add({TrainingFields::section()});
  add(checkpoint::sections());
  add({ValidationFields::section(), EarlyStoppingFields::section()});
  add(metrics::sections());
  add(track::sections());
  add(artefact::sections());
  return sections;
}

}  // namespace lehr::run
