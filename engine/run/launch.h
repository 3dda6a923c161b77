// `lehr launch`: the ranks of one node as a family of processes, from start to restart.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/track/track.h"

namespace lehr::run {

// The program with other words, as if started anew; returns its exit code.
using Program = std::function<int(const std::vector<std::string>& words)>;

struct LaunchRequest {
  // What a rank does, in a process that is a copy of the launcher's: LibTorch takes most of a
  // start, and is loaded here already. So the launcher asks nothing of CUDA (LibTorch would keep
  // the answer that there is none) and has one thread.
  Program program;
  int ranks = 1;
  std::string recipe;
  std::vector<std::string> overrides;  // as given by --set
  std::string run;                     // --run, or ""
  bool fresh = false, approximate = false, debug = false;
};

// Starts `ranks` processes of `lehr train`. Their lines come out as they come, the lead's plain,
// the others' with their rank, the same line of several ranks once; stdout and stderr stay apart.
// What asks for a stop is handed on (stop.h). When this process dies, however, they die with it. A
// rank that fails is named with its cause; the others are ended, once a checkpoint that one of them
// is writing is there, and all begin again from the newest, up to job.max_restarts times and no
// more than thrice without a step committed in between; what a restart cannot cure (recipe, data,
// non-finite numbers) is not tried again. A rank that shows no sign of life for
// parallelism.heartbeat is woken (SIGCONT), then ended; one whose main thread stands still is named
// with its phase and step, and ended after parallelism.timeout (Standstill).
Code launch(const LaunchRequest& request, track::Terminal& terminal);
// Starts `ranks` processes of the program with these words once, and returns how they ended.
Code launch_once(const Program& program, int ranks, const std::vector<std::string>& words,
                 track::Terminal& terminal);

// Of a rank: tells a launcher where the run is.
void tell_launcher_folder(const std::string& folder);

}  // namespace lehr::run
