// Lets a run stop at any instant and go on as if it had not: the protocol of FORMAT.md. No LibTorch
// here; a tensor is a name, a dtype, a shape and memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/fields.h"
#include "engine/base/safetensors.h"

namespace lehr::checkpoint {

// What one checkpoint holds. Shards: "weights" (model parameters and buffers: model.safetensors),
// "state" (optimizer, EMA: state.safetensors).
struct Content {
  int64_t step = 0;
  int64_t samples = 0;  // consumed, counted globally
  std::map<std::string, std::vector<TensorView>> shards;
  std::map<std::string, std::string> texts;  // small files: "recipe.yaml", ...
  std::string facts;  // JSON object: everything that exactness depends on and the run's scalars
};

// One committed checkpoint as its manifest tells.
struct Entry {
  int64_t step = 0;
  std::string path;
  std::string problem;            // empty: the manifest verifies (files are checked on load)
  std::optional<double> monitor;  // number "monitor" of the facts, for keep_best_k
};

// keep_latest_k counts as 2 at least: the newest may turn out damaged. keep_every: steps, 0 for
// none.
struct Retention {
  int64_t keep_latest_k = 3, keep_best_k = 1, keep_every = 0;
  bool larger_is_better = true;
};

// A loaded checkpoint; views point into mapped files that live as long as it does.
struct Loaded {
  int64_t step = 0, samples = 0;
  std::string path, facts;
  std::map<std::string, std::shared_ptr<SafetensorsFile>> shards;
  std::map<std::string, std::string> texts;
};

// Writes `content` under `folder` (the run's checkpoints/) and returns its path once durable. Any
// failure throws Error{kCheckpoint}; older checkpoints are untouched and the partial folder is
// removed. A step that is already there is never overwritten: that is a failure too.
std::string save(const std::string& folder, const Content& content);
// Verifies manifest, sizes and checksums of every byte. Throws Error{kCheckpoint} naming file and
// tensor.
Loaded load(const std::string& path);
// Newest first, damaged ones included with their problem; leftovers (.tmp-, .trash-) are not
// listed.
std::vector<Entry> list(const std::string& folder);
// The newest checkpoint that verifies; damaged ones are named through `complain` and renamed to
// .corrupt-...; leftovers of killed saves are removed. nullopt: there is none. Throws where a file
// may not be read (permissions, open files): that is no damage. Only for the holder of the run's
// lock.
std::optional<Loaded> load_newest(const std::string& folder,
                                  const std::function<void(const std::string&)>& complain);
// Removes what retention does not keep (renames first); never the newest that verifies, and never a
// damaged one, which is for load_newest to set aside.
void retain(const std::string& folder, const Retention& retention);

struct CheckpointFields {
  Duration interval{1, Duration::Unit::kEpochs};
  int64_t keep_latest_k = 3, keep_best_k = 1, keep_every = 0;
  std::string resume = "auto";  // auto | never | path of a checkpoint or of a run's checkpoints/
  static Section section();
};
std::vector<Section> sections();

}  // namespace lehr::checkpoint
