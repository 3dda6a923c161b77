// The folder of a run's checkpoints: which are there, which one to continue from, which to let go.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <set>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/manifest.h"
#include "engine/checkpoint/names.h"

namespace lehr::checkpoint {
namespace {

struct Step {
  int64_t number;
  std::string name;
};

std::vector<Step> newest_first(const std::string& folder) {
  std::vector<Step> steps;
  for (const auto& name : list_folder(folder))
    if (auto number = step_of_name(name)) steps.push_back({*number, name});
  std::sort(steps.begin(), steps.end(),
            [](const Step& a, const Step& b) { return a.number > b.number; });
  return steps;
}

bool is_leftover(const std::string& name) {
  return name.rfind(kTrashMark, 0) == 0 ||
         (name.rfind("step-", 0) == 0 && name.find(kTemporaryMark) != std::string::npos);
}

// unpublished first, so that a kill in between leaves no step that is listed and half gone
void discard(const std::string& folder, const std::string& name) {
  std::string trash = join_path(folder, kTrashMark + name + "-" + unique_id());
  rename_durably(join_path(folder, name), trash);
  remove_tree(trash);
}

// a step that this process may not read is not damaged
bool is_barred(const std::string& path) {
  auto barred = [](const std::string& file) {
    int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) return ::close(fd), false;
    return errno == EACCES || errno == EPERM || errno == EMFILE || errno == ENFILE;
  };
  if (barred(path)) return true;
  auto names = list_folder(path);
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return barred(join_path(path, name)); });
}

bool is_there(const std::string& folder, const std::string& name) {
  const auto names = list_folder(folder);
  return std::binary_search(names.begin(), names.end(), name);
}

// By the step's manifest; nullopt where its run has removed it meanwhile.
std::optional<Entry> entry_of(const std::string& folder, const Step& step) {
  Entry entry;
  entry.step = step.number;
  entry.path = join_path(folder, step.name);
  const std::string manifest_path = join_path(entry.path, kManifestName);
  try {
    const Manifest manifest = parse_manifest(read_file(manifest_path), manifest_path);
    entry.monitor = manifest.monitor();
    if (manifest.step != step.number)
      entry.problem = fmt::format("{}: is of step {}", manifest_path, manifest.step);
  } catch (const Error& e) {
    if (!is_there(folder, step.name)) return std::nullopt;
    entry.problem = e.what();
  }
  return entry;
}

// The newest that verifies. `bad` hears the name of each newer one and what is wrong with it; one
// that its run removed meanwhile is not bad, and what has come in its place is looked at.
std::optional<Loaded> first_good(
    const std::string& folder,
    const std::function<void(const std::string& name, const std::string& problem)>& bad) {
  std::set<std::string> passed;
  for (bool again = true; again;) {
    again = false;
    for (const auto& step : newest_first(folder)) {
      if (passed.count(step.name)) continue;
      const std::string path = join_path(folder, step.name);
      std::string problem;
      try {
        Loaded loaded = load(path);
        if (loaded.step == step.number) return loaded;
        problem = fmt::format("{}: its manifest is of step {}", path, loaded.step);
      } catch (const Error& e) {
        if (is_barred(path)) throw;
        again = !is_there(folder, step.name);
        if (again) break;
        problem = e.what();
      }
      passed.insert(step.name);
      bad(step.name, problem);
    }
  }
  return std::nullopt;
}

}  // namespace

std::string step_name(int64_t step) { return fmt::format("step-{:08d}", step); }

std::optional<int64_t> step_of_name(const std::string& name) {
  if (name.size() < 13 || name.size() > 23 || name.rfind("step-", 0) != 0) return {};
  if (name.find_first_not_of("0123456789", 5) != std::string::npos) return {};
  int64_t step = std::strtoll(name.c_str() + 5, nullptr, 10);
  if (step_name(step) != name) return {};
  return step;
}

std::vector<Entry> list(const std::string& folder) {
  std::vector<Entry> entries;
  for (const auto& step : newest_first(folder))
    if (auto entry = entry_of(folder, step)) entries.push_back(std::move(*entry));
  return entries;
}

std::optional<Loaded> newest(const std::string& folder,
                             const std::function<void(const std::string&)>& complain) {
  return first_good(folder, [&](const std::string&, const std::string& problem) {
    complain(problem + "; passed over");
  });
}

std::optional<Loaded> claim_newest(const std::string& folder, const FolderLock&,
                                   const std::function<void(const std::string&)>& complain) {
  for (const auto& name : list_folder(folder)) {
    if (!is_leftover(name)) continue;
    try {
      remove_tree(join_path(folder, name));
    } catch (const Error& e) {  // costs space only
      complain(e.what());
    }
  }
  return first_good(folder, [&](const std::string& name, const std::string& problem) {
    const std::string aside = join_path(folder, kCorruptMark + name + "-" + unique_id());
    complain(problem + "; set aside as " + aside);
    rename_durably(join_path(folder, name), aside);
  });
}

void retain(const std::string& folder, const Retention& retention) {
  const size_t latest = std::max<int64_t>(retention.keep_latest_k, 2);
  std::vector<Entry> good, rated;
  for (const auto& step : newest_first(folder)) {
    const bool for_good = retention.keep_every > 0 && step.number % retention.keep_every == 0;
    if (for_good && good.size() >= latest) continue;  // however many there are, none is opened
    const auto entry = entry_of(folder, step);
    if (!entry || !entry->problem.empty()) continue;
    good.push_back(*entry);
    const auto& monitor = entry->monitor;
    if (monitor &&
        (retention.monitor.empty() || monitor->name.empty() || monitor->name == retention.monitor))
      rated.push_back(*entry);
  }
  // of equal ones the older: the loop that looks for the best takes the first that reached it
  std::sort(rated.begin(), rated.end(), [&](const Entry& a, const Entry& b) {
    const double x = a.monitor->value, y = b.monitor->value;
    if (x == y) return a.step < b.step;
    return retention.larger_is_better ? x > y : x < y;
  });
  std::set<int64_t> kept;
  for (size_t i = 0; i < std::min(latest, good.size()); ++i) kept.insert(good[i].step);
  for (size_t i = 0; i < rated.size() && static_cast<int64_t>(i) < retention.keep_best_k; ++i)
    kept.insert(rated[i].step);
  for (const auto& entry : good)
    if (!kept.count(entry.step)) discard(folder, step_name(entry.step));
}

Section CheckpointFields::section() {
  using F = CheckpointFields;
  Declare<F> d("checkpoint", "When a run is saved, what is kept, and where it continues.");
  d.field("interval", &F::interval, "How often the run is saved; it is always saved at its end.")
      .above(0)
      .units(kLengthsOrTime)
      .synonyms({"save_steps", "save_interval", "steps_per_checkpoint", "every_n_train_steps",
                 "freq", "snapshot"})
      .free_to_change();
  d.field("keep_latest_k", &F::keep_latest_k,
          "How many of the newest checkpoints are kept; two at least, since one may get damaged.")
      .at_least(2)
      .synonyms({"save_total_limit", "save_num_checkpoints_to_keep", "max_to_keep"})
      .free_to_change();
  d.field("keep_best_k", &F::keep_best_k,
          "How many of the best checkpoints by validation.monitor are kept besides.")
      .at_least(0)
      .synonyms({"save_top_k", "keep_best"})
      .free_to_change();
  d.field("keep_every", &F::keep_every,
          "Checkpoints of steps that are multiples of it are kept for good; 0 for none.")
      .at_least(0)
      .unit("steps")
      .free_to_change();
  d.field("resume", &F::resume,
          "auto continues from the run's newest checkpoint that verifies, never begins a new run "
          "as --fresh does, the path of a run or checkpoint is where a run without checkpoints of "
          "its own begins.")
      .synonyms({"resume_from_checkpoint", "auto_resume_from_checkpoints", "autoresume",
                 "load_path", "ckpt_path", "load_step"})
      .free_to_change();
  return d.section();
}

std::vector<Section> sections() { return {CheckpointFields::section()}; }

}  // namespace lehr::checkpoint
