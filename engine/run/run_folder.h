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
  bool again = false;  // ranks that a launcher starts again go on with the run that they began
};

struct RunFolder {
  std::string path;
  std::unique_ptr<FolderLock> lock;
  bool made = false;      // by this process
  bool resumes = false;   // it held a run already
  bool finished = false;  // that run is done
  std::string note;       // of one that begins: the unfinished run that may have been meant

  std::string file(const std::string& name) const { return join_path(path, name); }
  std::string checkpoints() const { return file("checkpoints"); }
};

// Without `run`: the newest unfinished run whose recipe is the same but for fields that are free to
// change continues; a finished one of the very same recipe is returned as finished; else
// <output_dir>/<name>-<n> begins, with a number that nobody else takes. Throws Error{kUsage} when
// another process works in it, or when --fresh, or checkpoint.resume: never, which means the same,
// names a folder that holds a run.
RunFolder choose_run_folder(const recipe::Recipe& recipe, const FolderRequest& request);
// Takes the folder of a run away again that was made here and refused before it began.
void leave_nothing(RunFolder& folder);
// finished.json says that training ended, with its results (JSON text).
void mark_finished(const RunFolder& folder, const std::string& results_json);

}  // namespace lehr::run
