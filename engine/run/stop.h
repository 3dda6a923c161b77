// Requests to stop: SIGTERM, SIGINT (Ctrl-C), SIGHUP (the terminal is gone), SIGUSR1 and SIGUSR2 (a
// cluster's notice), SIGXCPU (the limit of CPU time). The first is remembered for whoever asks at a
// boundary; SIGPIPE is ignored. What the process was started to ignore (nohup, `&` in a script) it
// goes on ignoring.
//
// A second SIGINT ends the process at once, unless it comes within a second of the first: one
// Ctrl-C reaches a process twice where a wrapper in its process group hands on what the terminal
// has sent to the whole group (mpirun, torchrun, `timeout`, init wrappers), milliseconds later and,
// on a busy machine, tenths of a second. Who means it presses again; work that is lost does not
// come back.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace lehr::run {

// Of the process; `exits`: at a second SIGINT, with code 130. Otherwise interrupted_twice() says
// so.
void install_stop_signals(bool exits = true);
// Name of the signal that asked first ("SIGTERM"), or nullptr.
const char* stop_requested();
int stop_signal();  // its number, or 0
bool interrupted_twice();
// All is saved, so the process ends with 75 whatever comes.
void stop_is_served();

// While it lives a request to stop ends the process at once, and half-written files go: where there
// is nothing to save. With code 75 and "stopped by SIGTERM<said>", or, where nothing is said, as
// the signal would have by itself. A failure after a request counts as its consequence.
class LeaveWhenAsked {
 public:
  explicit LeaveWhenAsked(std::string said = "");
  ~LeaveWhenAsked();
  LeaveWhenAsked(const LeaveWhenAsked&) = delete;
  LeaveWhenAsked& operator=(const LeaveWhenAsked&) = delete;

 private:
  void leave_if_asked() const;
  const std::string said_;
  const int exceptions_ = std::uncaught_exceptions();
  std::mutex mutex_;
  std::condition_variable ended_;
  bool has_ended_ = false;
  std::thread thread_;
};

}  // namespace lehr::run
