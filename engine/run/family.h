// One life of the ranks of a node, from start to end: whose failure it was, and who waits for whom.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/run/beats.h"
#include "engine/run/launch.h"
#include "engine/run/relay.h"

namespace lehr::run {

class Family {
 public:
  Family(const Program& program, const SharedPulses& pulses, Relay& relay, int ranks,
         const Patience& patience);
  ~Family();  // kills whoever is left
  Family(const Family&) = delete;
  Family& operator=(const Family&) = delete;

  struct End {
    Code code = Code::kOk;
    std::string cause;  // of a failure
    bool curable = true;
  };

  void start(const std::vector<std::string>& words, int attempt);
  // Until all have ended, or one has failed and the rest is ended too: they are given two seconds,
  // who writes a checkpoint the whole timeout.
  End run();

 private:
  using Clock = Standstill::Clock;
  struct Child {
    pid_t pid = -1;
    std::optional<int> status;
    uint64_t alive = 0;
    Clock::time_point seen = Clock::now();
    bool woken = false;
    Standstill standstill;
    std::string stood;  // why it was ended
  };

  pid_t start_one(const std::vector<std::string>& words,
                  const std::map<std::string, std::string>& variables, int rank, int close_fd);
  int running() const;
  static bool is_failure(const Child& child);
  static bool follows(const Child& child);
  bool any_failed() const;
  bool knows_cause() const;
  bool was_stopped() const;
  void reap();
  void signal_all(int signal) const;
  void kill_all(bool spare_savers);
  void tell_cause();
  void watch();
  void watch_alive(int rank, Child& child);
  void watch_moves(int rank, Child& child);

  const Program& program_;
  const SharedPulses& pulses_;
  Relay& relay_;
  const int ranks_;
  const Patience patience_;
  const std::string job_;
  const int64_t kills_for_memory_;
  std::vector<Child> children_;
  std::vector<pid_t> killed_;  // by us, after a failure
  bool waits_for_save_ = false;
  std::string cause_;
  Code code_ = Code::kOk;
  bool curable_ = true;
};

}  // namespace lehr::run
