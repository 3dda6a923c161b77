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
  bool fresh = false, approximate = false;
};

// Starts `ranks` processes of `lehr train`. Their lines come out as they come, the lead's plain,
// the others' with their rank, the same line of several ranks once. SIGTERM, SIGUSR1 and SIGINT
// are handed on. When this process dies, however, they die with it. A rank that fails is named with
// its cause; the others are ended, and all begin again from the newest checkpoint, up to
// job.max_restarts times and no more than thrice without a step committed in between; what a
// restart cannot cure (recipe, data, non-finite numbers) is not tried again. A rank that shows no
// sign of life for parallelism.heartbeat is woken (SIGCONT), then ended.
Code launch(const LaunchRequest& request, track::Terminal& terminal);
// Starts `ranks` processes of the program with these words once, and returns how they ended.
Code launch_once(const Program& program, int ranks, const std::vector<std::string>& words,
                 track::Terminal& terminal);

// Of a rank under `lehr launch`: a sign of life every so often while this object lives; nothing
// otherwise.
class Heartbeat {
 public:
  Heartbeat();
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  struct State;
  State* state_ = nullptr;
};
// Tells a launcher where checkpoints are.
void tell_launcher_folder(const std::string& folder);
// That the failure that is under way is none that a restart cures.
void tell_launcher_incurable();
// Writes what ended this process where its launcher looks: LEHR_ERROR_FILE, and
// TORCHELASTIC_ERROR_FILE in torchrun's form.
void tell_launcher_error(const std::string& message);

}  // namespace lehr::run
