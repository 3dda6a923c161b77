#include "engine/recipe/names.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"

namespace lehr::recipe {
namespace {

// Words of other systems that no field declares; what is not declared here is not suggested.
const std::map<std::string, std::vector<std::string>>& foreign_words() {
  static const std::map<std::string, std::vector<std::string>> words = [] {
    std::map<std::string, std::vector<std::string>> map;
    auto add = [&](std::vector<std::string> targets, std::vector<std::string> names) {
      for (auto& name : names) map[name] = targets;
    };
    // sections
    add({"training"}, {"train", "trainer", "solver", "training_args"});
    add({"optimizer"}, {"optim", "optimiser", "opt"});
    add({"lr_scheduler"}, {"scheduler", "schedule", "lr_schedule", "learning_rate_scheduler"});
    add({"model"}, {"network", "net", "architecture"});
    add({"data"}, {"dataset", "datasets", "dataloader", "train_loader", "preprocessing"});
    add({"loss"}, {"criterion", "objective"});
    add({"metrics"}, {"logging", "logger", "loggers", "tensorboard", "wandb"});
    add({"validation"}, {"eval", "evaluation", "val"});
    add({"checkpoint"}, {"checkpointing", "checkpointer", "save"});
    add({"parallelism"}, {"comm", "fsdp_config", "distributed", "backend"});
    add({"export"}, {"onnx", "torchscript"});
    add({"tune"}, {"hyperopt", "sweep"});
    // how long, how much at once
    add({"training.max_epochs"}, {"epochs", "num_epochs", "num_train_epochs", "n_epochs"});
    add({"training.max_steps"}, {"steps", "total_steps", "train_steps", "max_iter", "iterations"});
    add({"training.max_steps", "training.max_epochs"}, {"max_duration", "duration"});
    add({"training.micro_batch_size", "training.global_batch_size"}, {"batch_size", "batchsize"});
    add({"training.micro_batch_size"},
        {"per_device_train_batch_size", "local_batch_size", "device_train_microbatch_size",
         "train_micro_batch_size_per_gpu", "microbatch_size"});
    add({"training.global_batch_size"},
        {"train_batch_size", "global_train_batch_size", "effective_batch_size"});
    add({"training.gradient_accumulation_steps"},
        {"accumulate_grad_batches", "grad_accum", "gradient_accumulation", "accumulation_steps"});
    add({"job.time_limit"}, {"max_time", "time_limit", "walltime"});
    // how the weights move
    add({"optimizer.lr"}, {"learning_rate", "lr", "base_lr", "peak_lr"});
    add({"optimizer.name"}, {"optimizer_type", "_component_"});
    add({"optimizer.weight_decay"}, {"wd", "l2_reg"});
    add({"optimizer.freeze"}, {"frozen", "freeze_layers"});
    add({"lr_scheduler.name"}, {"lr_scheduler_type", "decay_type", "lr_policy"});
    add({"lr_scheduler.warmup_steps"}, {"warmup", "num_warmup_steps", "t_warmup", "warmup_ratio"});
    add({"lr_scheduler.min_lr_factor"}, {"min_lr", "alpha_f", "end_lr"});
    add({"training.max_grad_norm"}, {"gradient_clip_val", "clip_grad_norm", "max_norm",
                                     "gradient_clipping", "grad_clip", "clipping_threshold"});
    add({"training.precision"}, {"dtype", "bf16", "fp16", "amp", "mixed_precision",
                                 "use_mixed_precision", "mixed_precision_param"});
    add({"training.ema_decay"}, {"ema"});
    add({"training.seed"}, {"seed", "random_seed", "manual_seed"});
    add({"training.deterministic"}, {"full_determinism", "deterministic_mode"});
    add({"training.device"}, {"accelerator", "devices", "gpu", "gpus"});
    add({"training.kernels"}, {"compile", "torch_compile", "use_custom_kernels"});
    add({"loss.label_smoothing"}, {"label_smoothing_factor", "smoothing"});
    // where things are and go
    add({"job.output_dir"},
        {"output_dir", "dump_folder", "save_folder", "default_root_dir", "output_directory"});
    add({"job.name"}, {"run_name", "experiment_name", "wandb_name", "description"});
    add({"data.threads"}, {"num_workers", "workers", "dataloader_num_workers", "num_threads"});
    add({"data.validation_fraction"}, {"val_set_size", "val_split", "validation_split"});
    add({"model.init_from"}, {"base_model", "initial_load_path", "init_checkpoint"});
    // when things happen
    add({"checkpoint.interval"}, {"save_steps", "save_interval", "save_every", "snapshot"});
    add({"checkpoint.keep_latest_k"},
        {"save_total_limit", "save_num_checkpoints_to_keep", "save_top_k"});
    add({"checkpoint.resume"},
        {"resume", "resume_from_checkpoint", "load_path", "autoresume", "ckpt_path", "load_step"});
    add({"validation.interval"}, {"eval_steps", "eval_interval", "val_check_interval",
                                  "eval_strategy", "run_val_every_n_steps", "evals_per_epoch"});
    add({"validation.monitor"}, {"metric_for_best_model", "validation_metric"});
    add({"validation.mode"}, {"greater_is_better"});
    add({"early_stopping.patience"}, {"early_stopping_patience", "patience", "early_stop"});
    add({"metrics.log_interval"},
        {"logging_steps", "log_freq", "log_every_n_steps", "steps_per_print", "display"});
    add({"metrics.report_to"}, {"metric_logger", "enable_tensorboard"});
    // beyond one device
    add({"parallelism.zero_stage"}, {"zero_optimization", "stage", "sharding"});
    add({"parallelism.data_parallel_shard_degree"}, {"dp_shard_size", "data_parallel_shard_dim"});
    add({"activation_checkpoint.mode"},
        {"gradient_checkpointing", "enable_activation_checkpointing", "activation_checkpointing"});
    return map;
  }();
  return words;
}

// spelled as here: lower case, underscores
std::string normal(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c |= 0x20;
    if (c == '-' || c == ' ') c = '_';
  }
  return text;
}

std::string leaf(const std::string& dotted) { return dotted.substr(dotted.rfind('.') + 1); }

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

std::string did_you_mean(const std::vector<std::string>& found) {
  std::string text;
  for (const auto& key : found) text += (text.empty() ? "" : " or ") + key;
  return "did you mean " + text + "?";
}

}  // namespace

Names::Names(const std::vector<Section>& sections) {
  for (const auto& section : sections) {
    sections_.push_back(section.name);
    for (const auto& [name, since] : section.gone_list) gone_[section.name + "." + name] = since;
    for (const auto& field : section.fields) {
      Known known{section.name, field.name, field.synonym_list, field.was_list};
      auto same = std::find_if(known_.begin(), known_.end(),
                               [&](const Known& k) { return k.key() == known.key(); });
      if (same == known_.end()) {
        known_.push_back(std::move(known));
      } else {
        same->synonyms.insert(same->synonyms.end(), known.synonyms.begin(), known.synonyms.end());
        same->was.insert(same->was.end(), known.was.begin(), known.was.end());
      }
    }
  }
}

bool Names::has(const std::string& key) const {
  return contains(sections_, key) ||
         std::any_of(known_.begin(), known_.end(), [&](const Known& k) { return k.key() == key; });
}

// Keys that were certainly meant: a synonym in the section, the name in another one, a synonym
// there.
Names::Found Names::exact(const std::string& section, const std::string& dotted) const {
  Found here, named, elsewhere;
  std::string full = section.empty() ? dotted : section + "." + dotted;
  for (const auto& known : known_) {
    bool same_section = known.section == section;
    bool is_synonym = contains(known.synonyms, full) || contains(known.synonyms, dotted) ||
                      contains(known.synonyms, leaf(dotted));
    bool same_name = known.name == dotted || leaf(known.name) == leaf(dotted);
    if (same_section && (is_synonym || same_name)) {
      here.push_back(known.key());
    } else if (same_name) {
      named.push_back(known.key());
    } else if (is_synonym) {
      elsewhere.push_back(known.key());
    }
  }
  for (auto* found : {&here, &named, &elsewhere}) {
    // a word like `name`, which every section has, says nothing
    if (!found->empty() && found->size() <= 3) return *found;
  }
  return {};
}

Names::Found Names::foreign(const std::string& word) const {
  auto found = foreign_words().find(word);
  Found keys;
  if (found == foreign_words().end()) return keys;
  for (const auto& key : found->second) {
    if (has(key)) keys.push_back(key);
  }
  return keys;
}

std::string Names::gone(const std::string& section, const std::string& dotted) const {
  auto found = gone_.find(section + "." + dotted);
  return found == gone_.end() ? "" : found->second;
}

std::string Names::hint(const std::string& section, const std::string& dotted) const {
  for (const auto& known : known_)
    if (contains(known.was, section + "." + dotted)) return "it is called " + known.key() + " now";
  std::string word = normal(dotted);
  if (has(section + "." + word) && word != dotted) return did_you_mean({section + "." + word});
  if (leaf(dotted) == "<<") return "to inherit, write extends: FILE at the top";
  auto found = exact(section, word);
  if (found.empty()) found = foreign(leaf(word));
  if (!found.empty()) return did_you_mean(found);

  // near spellings: in the section, then (if very near) anywhere
  std::map<std::string, std::string> within, anywhere;  // to key
  for (const auto& known : known_) {
    if (known.section == section) within.emplace(known.name, known.key());
    anywhere.emplace(leaf(known.name), known.key());
  }
  auto near = [](const std::string& text, const std::map<std::string, std::string>& among) {
    std::vector<std::string> names;
    for (const auto& [name, key] : among) names.push_back(name);
    std::string best = nearest(text, names);
    return best.empty() ? best : among.at(best);
  };
  std::string best = near(word, within);
  if (best.empty() && word.size() >= 8) best = near(leaf(word), anywhere);
  if (!best.empty()) return did_you_mean({best});

  if (within.empty()) return "";
  std::string has_keys;
  size_t count = 0;
  for (const auto& known : known_) {
    if (known.section != section || count > 12) continue;
    has_keys += (count == 0 ? "" : ", ") + (count == 12 ? "..." : known.name);
    ++count;
  }
  return fmt::format("{} has {}", section, has_keys);
}

std::string Names::top_level_hint(const std::string& key) const {
  std::string word = normal(key);
  if (word != key && contains(sections_, word)) return did_you_mean({word});
  if (key == "<<") return "to inherit, write extends: FILE at the top";
  if (has(key)) {  // only a dotted key gets here
    size_t dot = key.find('.');
    return fmt::format("nest it as \"{}: {{{}: ...}}\"", key.substr(0, dot), key.substr(dot + 1));
  }
  auto found = exact("", word);
  if (found.empty()) found = foreign(word);
  if (!found.empty()) return did_you_mean(found);
  auto tops = sections_;
  tops.push_back("extends");
  std::string best = nearest(word, tops);
  if (!best.empty()) return did_you_mean({best});
  std::map<std::string, std::string> anywhere;
  std::vector<std::string> leaves;
  for (const auto& known : known_) {
    if (anywhere.emplace(leaf(known.name), known.key()).second) leaves.push_back(leaf(known.name));
  }
  best = nearest(word, leaves);
  if (!best.empty()) return did_you_mean({anywhere.at(best)});
  std::string all;
  for (const auto& name : sections_) all += (all.empty() ? "" : ", ") + name;
  return "the sections are " + all;
}

}  // namespace lehr::recipe
