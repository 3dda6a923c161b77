// The folder of a run: how it is found or named, locked, and what lies where in it.
#pragma once

#include <memory>
#include <string>

#include "engine/base/files.h"
#include "engine/recipe/recipe.h"

namespace lehr::run {

struct FolderRequest {
  std::string run;     // --run DIR, or "" to choose
  bool fresh = false;  // --fresh: always begin
};

struct RunFolder {
  std::string path;
  std::unique_ptr<FolderLock> lock;
  bool resumes = false;   // it held a run already
  bool finished = false;  // that run is done

  std::string file(const std::string& name) const { return join_path(path, name); }
  std::string checkpoints() const { return file("checkpoints"); }
};

// Without `run`: the newest unfinished run of the same resolved recipe continues, a finished one is
// returned as finished, else <output_dir>/<name>-<n> begins. Throws Error{kUsage} when another
// process works in it, or when --fresh names a folder that holds a run.
RunFolder choose_run_folder(const recipe::Recipe& recipe, const FolderRequest& request);
// finished.json says that training ended, with its results (JSON text).
void mark_finished(const RunFolder& folder, const std::string& results_json);

}  // namespace lehr::run
