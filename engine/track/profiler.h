// A Chrome trace of chosen steps: LibTorch's operators (and a GPU's kernels) through its own
// profiler, and the phases of the loop (trace.h) in the same file. Off, a call is one comparison.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/track/fields.h"

namespace lehr::track {

class Profiler {
 public:
  // Records steps [first_step, first_step + steps); steps <= 0: never. One profiler at a time
  // records, the operators of the thread that calls step_begins() and of the backward passes that
  // it starts. `gpu` records kernels of a CUDA device too.
  Profiler(std::string path, int64_t first_step, int64_t steps, bool gpu = false);
  ~Profiler();  // writes what was recorded when training ended in between
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;
  void step_begins(int64_t step) {
    if (step >= first_ && step <= last_) begin(step);
  }
  // After the last chosen step the file is written; a failure is a warning, and training goes on.
  void step_ends(int64_t step) {
    if (step >= first_ && step <= last_) end(step);
  }

 private:
  struct Recording;
  void begin(int64_t step);
  void end(int64_t step);
  void write();

  std::string path_;
  int64_t first_, last_;
  bool gpu_;
  std::unique_ptr<Recording> recording_;
};

// Into `folder`; one that never records when the fields say so.
std::unique_ptr<Profiler> make_profiler(const ProfilingFields& fields, const std::string& folder,
                                        bool gpu = false);

}  // namespace lehr::track
