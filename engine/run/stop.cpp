#include "engine/run/stop.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/leave.h"
#include "engine/base/log.h"

namespace lehr::run {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU};
constexpr int64_t kTogetherMs = 1000;
constexpr auto kLook = std::chrono::milliseconds(20);

std::atomic<int> first{0};
std::atomic<int64_t> interrupted_ms{0};
std::atomic<bool> twice{false}, exits{true}, is_served{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free);

int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void on_signal(int signal) {
  int none = 0;
  first.compare_exchange_strong(none, signal);
  if (signal != SIGINT) return;
  int64_t never = 0;
  const int64_t now = now_ms();
  if (interrupted_ms.compare_exchange_strong(never, now) || now - never <= kTogetherMs) return;
  twice = true;
  if (is_served) _exit(static_cast<int>(Code::kStopped));
  if (!exits) return;
  constexpr char kSaid[] = "\ninterrupted twice: what follows the last checkpoint is not saved\n";
  if (write(2, kSaid, sizeof kSaid - 1) < 0) {  // nobody reads it
  }
  _exit(static_cast<int>(Code::kInterrupted));
}

}  // namespace

void install_stop_signals(bool exits_at_second) {
  exits = exits_at_second;
  signal(SIGPIPE, SIG_IGN);  // whoever reads what is printed may go away, training does not
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : kSignals) {
    struct sigaction before = {};
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      sigaction(signal, &action, nullptr);
  }
}

const char* stop_requested() {
  switch (first.load()) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    case SIGXCPU:
      return "SIGXCPU";
    default:
      return nullptr;
  }
}

int stop_signal() { return first.load(); }
bool interrupted_twice() { return twice.load(); }
void stop_is_served() { is_served = true; }

LeaveWhenAsked::LeaveWhenAsked(std::string said) : said_(std::move(said)) {
  install_stop_signals();
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    do leave_if_asked();
    while (!ended_.wait_for(lock, kLook, [this] { return has_ended_; }));
  });
}

LeaveWhenAsked::~LeaveWhenAsked() {
  {
    const std::lock_guard lock(mutex_);
    if (std::uncaught_exceptions() > exceptions_) leave_if_asked();
    has_ended_ = true;
  }
  ended_.notify_all();
  thread_.join();
}

void LeaveWhenAsked::leave_if_asked() const {
  const int signal = stop_signal();
  if (signal == 0) return;
  if (!said_.empty()) {
    log_info(fmt::format("stopped by {}{}", stop_requested(), said_));
    leave(Code::kStopped);
  }
  remove_temporaries();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace lehr::run
