// Whether training gets on: a rank that stands still is named and ended, by `lehr launch`, which
// sees what its ranks show, or under any other launcher, and under none, by a thread of its own.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "engine/base/pulse.h"

namespace lehr::run {

// parallelism.heartbeat and .timeout, in seconds; 0: nobody watches.
struct Patience {
  double heartbeat_s = 0, timeout_s = 0;
};

// What repeated looks at one process say. A main thread stands still when it shows no sign (see
// Pulse) and waits for nobody:
// - for longer than the heartbeat or, where that is more, ten times what is usual in its phase; ten
//   heartbeats in a phase that is new: then it is named;
// - for longer than the timeout, and than that: then it is over.
// Time counts while the process runs at all, so neither Ctrl-Z nor a suspended machine is a
// standstill.
class Standstill {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Verdict { kFine, kBegins, kEnds, kOver };

  explicit Standstill(const Patience& patience) : patience_(patience) {}
  Verdict look(const Pulse& pulse, Clock::time_point now);
  // "has been in `load` of step 1505 for 12 s"
  std::string text(const Pulse& pulse) const;

 private:
  const Patience patience_;
  uint64_t alive_ = 0, moves_ = 0;
  Clock::time_point seen_{};  // alive
  double stands_s_ = 0;
  bool is_named_ = false;
};

// The memory that ranks show their pulse in: anonymous, so nothing is left of it, and theirs
// because they are copies of the process that made it.
class SharedPulses {
 public:
  explicit SharedPulses(int ranks);
  ~SharedPulses();
  SharedPulses(const SharedPulses&) = delete;
  SharedPulses& operator=(const SharedPulses&) = delete;
  Pulse& of(int rank) const { return pulses_[rank]; }
  void reset(int rank) const;  // but for the run's folder

 private:
  const size_t bytes_;
  Pulse* pulses_ = nullptr;
};

// Of a training, as long as it lives: shows that the process runs and, in phases that are new, that
// it computes. Where nobody else looks, names a standstill ("training has been in ...", or "rank 1
// of 2 ...") and ends the process with kRanks when it is over.
class Watch {
 public:
  Watch(int rank, int ranks);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  void set(const Patience& patience);  // nothing is named before

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lehr::run
