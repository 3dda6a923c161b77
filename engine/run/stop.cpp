#include "engine/run/stop.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "engine/base/error.h"

namespace lehr::run {
namespace {

std::atomic<int> received{0};
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int signal) {
  if (signal == SIGINT && received.exchange(SIGINT) == SIGINT)
    _exit(static_cast<int>(Code::kInterrupted));
  received = signal;
}

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

const char* stop_requested() {
  switch (received.load()) {
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGINT:
      return "SIGINT";
    default:
      return nullptr;
  }
}

int stop_signal() { return received.load(); }

}  // namespace lehr::run
