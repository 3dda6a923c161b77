#include "engine/run/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/run/fields.h"

namespace lehr::run {
namespace {

// number behind "name-", or -1
int64_t number_of(const std::string& folder, const std::string& name) {
  if (folder.size() <= name.size() + 1 || folder.compare(0, name.size() + 1, name + "-") != 0)
    return -1;
  const std::string digits = folder.substr(name.size() + 1);
  if (digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::strtoll(digits.c_str(), nullptr, 10);
}

RunFolder enter(const std::string& path) {
  make_folders(path);
  RunFolder folder;
  folder.path = path;
  folder.lock = std::make_unique<FolderLock>(path);
  folder.resumes = file_exists(folder.file("recipe.yaml"));
  folder.finished = file_exists(folder.file("finished.json"));
  return folder;
}

}  // namespace

RunFolder choose_run_folder(const recipe::Recipe& recipe, const FolderRequest& request) {
  if (!request.run.empty()) {
    RunFolder folder = enter(request.run);
    if (folder.resumes && request.fresh)
      throw Error(Code::kUsage, "this folder holds a run already", request.run,
                  "leave --fresh out to continue it, or name another folder");
    return folder;
  }
  const auto job = recipe.get<JobFields>();
  const std::string name = job.name.empty() ? recipe.stem() : job.name;
  int64_t last = 0;
  std::vector<std::pair<int64_t, std::string>> known;
  for (const auto& entry : list_folder(job.output_dir)) {
    int64_t number = number_of(entry, name);
    if (number < 0) continue;
    last = std::max(last, number);
    known.emplace_back(number, join_path(job.output_dir, entry));
  }
  std::sort(known.rbegin(), known.rend());
  if (!request.fresh) {
    // the newest unfinished run of the same recipe, else the newest finished one
    const std::string resolved = recipe.resolved();
    std::string done;
    for (const auto& [number, path] : known) {
      const std::string file = join_path(path, "recipe.yaml");
      if (!file_exists(file) || read_file(file, 1 << 22) != resolved) continue;
      if (!file_exists(join_path(path, "finished.json"))) return enter(path);
      if (done.empty()) done = path;
    }
    if (!done.empty()) return enter(done);
  }
  return enter(join_path(job.output_dir, fmt::format("{}-{}", name, last + 1)));
}

void mark_finished(const RunFolder& folder, const std::string& results_json) {
  write_file_durably(folder.file("finished.json"), results_json);
}

}  // namespace lehr::run
