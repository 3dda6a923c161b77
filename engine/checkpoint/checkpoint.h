// Lets a run stop at any instant and go on as if it had not: the protocol of FORMAT.md. No LibTorch
// here; a tensor is a name, a dtype, a shape and memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/fields.h"
#include "engine/base/rows.h"
#include "engine/base/safetensors.h"

namespace lehr {
class FolderLock;
}

namespace lehr::checkpoint {

// Which of several processes that write one checkpoint together, each its own shard "state". The
// first draws `folder` (begin_parts), writes everything else and commits.
struct Part {
  int64_t index = 0, count = 1;
  std::string folder;
  double patience_s = 600;  // of the first, for the others
};

// What one checkpoint holds. Shards: "weights" (model parameters and buffers: model.safetensors),
// "state" (optimizer, EMA: state.safetensors).
struct Content {
  int64_t step = 0;
  int64_t samples = 0;  // consumed, counted globally
  std::map<std::string, std::vector<TensorView>> shards;
  std::map<std::string, std::string> texts;  // small files: "recipe.yaml", ...
  std::string facts;  // JSON object: everything that exactness depends on and the run's scalars
  // Of tensors of "state" of which this process has some rows only: which.
  std::map<std::string, Rows> rows;
  Part part;
  // Called when all is written, before it is committed; may wait. What it throws, save() throws,
  // and nothing is committed.
  std::function<void()> approval;
};

// By what checkpoints are compared: a finite value, and of what; "" where that is not known.
struct Monitor {
  std::string name;
  double value = 0;
};

// One committed checkpoint as its manifest tells.
struct Entry {
  int64_t step = 0;
  std::string path;
  std::string problem;             // empty: the manifest verifies (files are checked on load)
  std::optional<Monitor> monitor;  // "monitor" of the facts, for keep_best_k
};

// keep_latest_k counts as 2 at least: the newest may turn out damaged. keep_every: steps, 0 for
// none. A step that it keeps, and that is none of the latest, is not among those compared.
struct Retention {
  int64_t keep_latest_k = 3, keep_best_k = 1, keep_every = 0;
  bool larger_is_better = true;
  std::string monitor;  // other names are not compared; "": all are
};

// A loaded checkpoint; views point into mapped files that live as long as it does.
struct Loaded {
  int64_t step = 0, samples = 0;
  std::string path, facts;
  std::map<std::string, std::shared_ptr<SafetensorsFile>> shards;
  std::map<std::string, std::string> texts;
  // a shard that several processes have written: what each has, and which rows of what is not whole
  struct Piece {
    std::shared_ptr<SafetensorsFile> file;
    std::map<std::string, Rows> rows;
  };
  std::map<std::string, std::vector<Piece>> shared;
};

// Writes `content` under `folder` (the run's checkpoints/) and returns its path once durable. Any
// failure throws Error{kCheckpoint}; older checkpoints are untouched and the partial folder is
// removed. A step that is already there is never overwritten: that is a failure too.
// Of several processes the first commits once the others' parts are there, or fails with the reason
// that one of them left; the others return when their part is durable. `give_up`: the first waits
// no longer.
std::string save(const std::string& folder, const Content& content,
                 const std::atomic<bool>* give_up = nullptr);
// Of a process that cannot write its part after all: the first hears why, and need not wait.
void abandon(const Part& part, const std::string& why);
// Makes the folder that all parts of a step's checkpoint are written to, and returns its path.
std::string begin_parts(const std::string& folder, int64_t step);
// Gives a committed checkpoint other facts, and changes nothing else: whoever reads it meanwhile
// finds the old ones or the new. For the holder of its run's lock.
void restate(const std::string& path, const std::string& facts, const FolderLock& lock);
// Verifies manifest, sizes and checksums of every byte. Throws Error{kCheckpoint} naming file and
// tensor. `wanted`: of tensors of which this process wants some rows only, which; parts of others
// that hold none of them are not read, so that many ranks do not each read everything.
Loaded load(const std::string& path, const std::map<std::string, Rows>& wanted = {});
// Newest first, damaged ones included with their problem; leftovers (.tmp-, .trash-) are not
// listed.
std::vector<Entry> list(const std::string& folder);
// The newest checkpoint that verifies; damaged ones are named through `complain` and passed over.
// Changes nothing, and so may look at a run that trains meanwhile. nullopt: there is none. Throws
// where a file may not be read (permissions, open files): that is no damage.
std::optional<Loaded> newest(const std::string& folder,
                             const std::function<void(const std::string&)>& complain);
// The same for the holder of the run's lock: damaged ones are renamed to .corrupt-..., leftovers of
// killed saves are removed.
std::optional<Loaded> claim_newest(const std::string& folder, const FolderLock& lock,
                                   const std::function<void(const std::string&)>& complain);
// Removes what retention does not keep (renames first); never the newest that verifies, and never a
// damaged one, which is for claim_newest to set aside.
void retain(const std::string& folder, const Retention& retention);

struct CheckpointFields {
  Duration interval{1, Duration::Unit::kEpochs};
  int64_t keep_latest_k = 3, keep_best_k = 1, keep_every = 0;
  std::string resume = "auto";  // auto | never | path of a checkpoint or of a run's checkpoints/
  static Section section();
};
std::vector<Section> sections();

}  // namespace lehr::checkpoint
