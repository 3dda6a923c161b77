#include "engine/run/run_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/run/fields.h"
#include "engine/run/plan.h"

namespace lehr::run {
namespace {

namespace fs = std::filesystem;

// In so many fields a finished run differs from one that a user may have meant to go on with.
constexpr size_t kFewChanges = 3;

// number behind "name-", or -1
int64_t number_of(const std::string& folder, const std::string& name) {
  if (folder.size() <= name.size() + 1 || folder.compare(0, name.size() + 1, name + "-") != 0)
    return -1;
  const std::string digits = folder.substr(name.size() + 1);
  if (digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::strtoll(digits.c_str(), nullptr, 10);
}

RunFolder enter(const std::string& path, bool made) {
  RunFolder folder;
  folder.path = path;
  folder.made = made;
  folder.lock = std::make_unique<FolderLock>(path);
  folder.resumes = file_exists(folder.file("recipe.yaml"));
  folder.finished = file_exists(folder.file("finished.json"));
  return folder;
}

// What the run in `path` would have to change to be one of `recipe`; nullopt where none has begun.
std::optional<std::vector<recipe::Difference>> changes_of(const std::string& path,
                                                          const recipe::Recipe& recipe) {
  const std::string file = join_path(path, "recipe.yaml");
  if (!file_exists(file)) return std::nullopt;
  const std::string text = read_file(file, 1 << 22);
  if (text == recipe.resolved()) return std::vector<recipe::Difference>();
  try {
    return stored_recipe(text, file, {}, recipe.folder()).differences(recipe);
  } catch (const Error& error) {
    log_warning(fmt::format("this run is passed over: {}", error.what()));
    return std::nullopt;
  }
}

// "lr-1 is unfinished at step 20 and differs in ...": what a user may have meant by this recipe.
std::string unfinished(const std::string& path, const std::vector<recipe::Difference>& changes) {
  const auto saved = checkpoint::list(join_path(path, "checkpoints"));
  if (saved.empty()) return "";
  std::vector<std::string> lines;
  for (const auto& change : changes)
    if (change.exact) lines.push_back(change.text());
  const size_t more = lines.size() > 5 ? lines.size() - 5 : 0;
  lines.resize(lines.size() - more);
  if (more > 0) lines.push_back(fmt::format("and {} more fields", more));
  return fmt::format(
      "{} is unfinished at step {} and differs in {}; --run {} --allow-approximate-resume goes on "
      "with it",
      path, saved.front().step, fmt::join(lines, ", "), path);
}

std::string finished(const std::string& path, const std::vector<recipe::Difference>& changes) {
  const bool any_exact =
      std::any_of(changes.begin(), changes.end(), [](const auto& change) { return change.exact; });
  std::vector<std::string> lines;
  for (const auto& change : changes)
    if (change.exact == any_exact) lines.push_back(change.text());
  return fmt::format("{} is finished and differs in {}; --run {} says how to go on from it", path,
                     fmt::join(lines, ", "), path);
}

}  // namespace

RunFolder choose_run_folder(const recipe::Recipe& recipe, const FolderRequest& request) {
  const std::string resume = recipe.get<checkpoint::CheckpointFields>().resume;
  const bool never = resume == "never", begins_elsewhere = !never && resume != "auto";
  const bool fresh = (request.fresh || never) && !request.again;
  if (!request.run.empty()) {
    if (fs::exists(request.run) && !fs::is_directory(request.run))
      throw Error(Code::kUsage, "is no folder", request.run, "name a folder for the run");
    RunFolder folder = enter(request.run, make_new_folder(request.run));
    if (folder.resumes && fresh)
      throw Error(Code::kUsage, "this folder holds a run already", request.run,
                  never ? "add --set checkpoint.resume=auto to continue it, or name another folder"
                        : "leave --fresh out to continue it, or name another folder");
    return folder;
  }
  const auto job = recipe.get<JobFields>();
  const std::string whole = job.name.empty() ? recipe.stem() : job.name;
  if (const std::string problem = name_problem(whole, NameRule::kNested); !problem.empty())
    throw Error(Code::kRecipe, fmt::format("a run called '{}' {}", whole, problem),
                recipe.where("job.name"), "set job.name");
  // "exp/lr" is the run lr-1 in the folder exp
  const fs::path place = fs::path(job.output_dir) / whole;
  const std::string parent = place.parent_path().string(), name = place.filename().string();
  int64_t last = 0;
  std::vector<std::pair<int64_t, std::string>> known;
  for (const auto& entry : list_folder(parent)) {
    int64_t number = number_of(entry, name);
    if (number < 0) continue;
    last = std::max(last, number);
    known.emplace_back(number, join_path(parent, entry));
    if (!file_exists(known.back().second))
      log_warning(known.back().second + " is a link that leads nowhere; its number stays taken");
  }
  std::sort(known.rbegin(), known.rend());
  std::string note;
  if (!fresh) {
    std::string done;
    for (const auto& [number, path] : known) {
      const auto changes = changes_of(path, recipe);
      if (!changes) continue;
      const bool exact = std::none_of(changes->begin(), changes->end(),
                                      [](const recipe::Difference& d) { return d.exact; });
      // from where this one is to begin, that one has not begun
      if (begins_elsewhere && std::any_of(changes->begin(), changes->end(), [](const auto& d) {
            return d.key == "checkpoint.resume";
          }))
        continue;
      if (file_exists(join_path(path, "finished.json"))) {
        if (changes->empty() && done.empty()) done = path;
        if (!changes->empty() && changes->size() <= kFewChanges && note.empty())
          note = finished(path, *changes);
      } else if (exact) {
        return enter(path, false);
      } else if (note.empty()) {
        note = unfinished(path, *changes);
      }
    }
    if (!done.empty()) return enter(done, false);
  }
  // who begins at the same moment takes the next number
  std::string path;
  do path = join_path(parent, fmt::format("{}-{}", name, ++last));
  while (!make_new_folder(path));
  RunFolder folder = enter(path, true);
  folder.note = note;
  return folder;
}

void mark_finished(const RunFolder& folder, const std::string& results_json) {
  write_file_durably(folder.file("finished.json"), results_json);
}

void leave_nothing(RunFolder& folder) {
  if (!folder.made || !folder.lock || file_exists(folder.file("recipe.yaml"))) return;
  std::error_code ignored;
  fs::remove(folder.checkpoints(), ignored);  // an empty one
  folder.lock->remove_empty_folder();
}

}  // namespace lehr::run
