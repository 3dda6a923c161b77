// Where a process' main thread is and whether it gets on, for whoever watches: a thread of its own,
// or `lehr launch`, which shares this memory with its ranks. The trade: a clock reading a sign.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace lehr {

// What one process shows. All zero is a process that has not begun to.
struct Pulse {
  static constexpr size_t kFolder = 4096, kCause = 1 << 16;
  std::atomic<uint64_t> alive;  // rises while the process runs at all
  std::atomic<uint64_t> moves;  // rises as its main thread gets on
  std::atomic<uint64_t> phase;  // in which it is: up to eight letters
  std::atomic<int64_t> step;
  // how long the main thread stands between two signs in this phase: the longest of a visit, by the
  // median over visits; 0 while the phase is new
  std::atomic<int64_t> usual_ns;
  std::atomic<int> waits;       // the main thread: for other ranks, for whoever reads its output
  std::atomic<int> saves;       // checkpoints that are being written, in any thread
  std::atomic<bool> incurable;  // no restart cures what ends it
  std::atomic<bool> leaves;     // its work is over: what is left is to give back what it holds
  char folder[kFolder];         // of the run
  char cause[kCause];           // what ended the process, in its own words

  std::string phase_name() const;
};

// This process'; of its own until it shows another's memory.
Pulse& pulse();
void show_pulse_in(Pulse* shared);
bool pulse_is_shared();

// The main thread enters a phase, "load" or "step", of the step under way or the last one done.
void enter_phase(const char* name, int64_t step);
// A sign within a phase: a batch, a piece of a file. Of the main thread; from others while it is in
// the phase that they work for, or, where they have said none, always: they load ahead of it, and
// end soon where it stands.
void get_on();

// What this thread does until the object goes is for a phase of the main one, which waits for it at
// times; so its own longest stand decides what is usual there.
class WorkFor {
 public:
  explicit WorkFor(const char* phase);
  ~WorkFor();
  WorkFor(const WorkFor&) = delete;
  WorkFor& operator=(const WorkFor&) = delete;
};

// The main thread waits for others, and does not stand still by itself.
class Waiting {
 public:
  Waiting();
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  const bool is_main_;
};

// A checkpoint is being written.
class Saving {
 public:
  Saving() { ++pulse().saves; }
  ~Saving() { --pulse().saves; }
  Saving(const Saving&) = delete;
  Saving& operator=(const Saving&) = delete;
};

}  // namespace lehr
