// Preloaded into a launcher and so in each of its ranks: ends a rank as a fault of its own would,
// once a file die-PID in its working folder says how.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

// every other thread stands still for good, whatever signal comes but SIGKILL
void stand_still() {
  struct sigaction action {};
  action.sa_handler = [](int) {
    while (true) pause();
  };
  sigaction(SIGUSR2, &action, nullptr);
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    const pid_t id = std::stoi(thread.path().filename());
    if (id != gettid()) tgkill(getpid(), id, SIGUSR2);
  }
  while (true) pause();
}

void die_when_told() {
  const std::string file = "die-" + std::to_string(getpid());
  while (access(file.c_str(), F_OK) != 0) usleep(1000);
  std::string how;
  std::ifstream(file) >> how;
  if (how == "segfault") *static_cast<volatile int*>(nullptr) = 0;
  if (how == "abort") std::abort();
  if (how == "exit") _exit(9);
  if (how == "exception") throw std::runtime_error("planted");
  if (how == "stuck") stand_still();
  while (how == "memory") std::memset(std::malloc(1 << 20), 1, 1 << 20);
}

[[gnu::constructor]] void begin() {
  pthread_atfork(nullptr, nullptr, [] { std::thread(die_when_told).detach(); });
}

}  // namespace
