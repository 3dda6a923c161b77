// What the processes of a job share beside their collectives: the store, meetings there, and what
// is said when something fails. Of the job as a whole; a world of some of its ranks uses the same
// one.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "engine/base/error.h"
#include "engine/dist/notes.h"

namespace lehr::dist {

// A collective of this rank.
struct Call {
  const char* what;
  int64_t number;  // in the order of this rank's calls, which is that of all
  std::chrono::steady_clock::time_point begin;
  std::string text() const;  // "a sum, call 812"
};

// Where this rank is, for what others say of it.
class Whereabouts {
 public:
  void enter(const char* phase, int64_t step);
  void enter(const std::optional<Call>& call);
  Note now() const;  // "no call" between calls
  std::optional<Call> call() const;

 private:
  mutable std::mutex mutex_;
  const char* phase_ = nullptr;
  int64_t step_ = 0;
  std::optional<Call> call_;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

class Session {
 public:
  // Connects to the store, or serves it. Throws Error{kRanks}, with what answers at its address,
  // once that has not been a store for `timeout`.
  Session(const Place& place, Milliseconds timeout, Milliseconds heartbeat, bool ends_stuck_calls);
  ~Session();

  const Place& place() const { return place_; }
  Milliseconds timeout() const { return timeout_; }
  const StorePointer& store() const { return store_; }
  int64_t store_calls() const { return *calls_of_store_; }  // of this rank, so far
  void enter(const char* phase, int64_t step) { where_->enter(phase, step); }
  // Waits for all ranks; throws Absent.
  void meet(const std::string& what);

  Call begin(const char* what);
  // Does a call's work, or waits for it. A failure becomes Error{kRanks} that says where this rank
  // and the others were.
  void guarded(const Call& call, const std::function<void()>& work);
  // The same for work that may wait without end, as the store's client does for a host that is cut
  // off: then it is left behind on its thread, so it owns what it uses.
  void guarded_in_time(const Call& call, const std::function<void()>& work);

 private:
  const Place place_;
  const Milliseconds timeout_, heartbeat_;
  const CallCount calls_of_store_ = std::make_shared<std::atomic<int64_t>>(0);
  StorePointer server_, store_;
  const std::shared_ptr<Whereabouts> where_ = std::make_shared<Whereabouts>();
  int meetings_ = 0;
  int64_t calls_ = 0;
  bool failed_ = false;
};

}  // namespace lehr::dist
