// The loop: from a recipe to a proved artefact, resumable at every instant.
#pragma once

#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/run/run_folder.h"
#include "engine/track/track.h"

namespace lehr::run {

struct TrainRequest {
  std::string recipe;
  std::vector<std::string> overrides;  // --set
  FolderRequest folder;
  bool allow_approximate_resume = false;
};

// Returns kOk when training is done (or was done before), kStopped when it stopped early with
// everything saved. Throws Error.
Code train(const TrainRequest& request, track::Terminal& terminal);

}  // namespace lehr::run
