#include "engine/base/pulse.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <mutex>
#include <vector>

namespace lehr {
namespace {

constexpr size_t kVisits = 16;  // that a median is of
constexpr size_t kEnough = 10;  // visits until a phase is no longer new

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

uint64_t packed(const char* name) {
  uint64_t letters = 0;
  std::memcpy(&letters, name, std::min(std::strlen(name), sizeof letters));
  return letters;
}

// A thread's signs since it began to work for a phase.
struct Signs {
  uint64_t phase = 0;
  int64_t last_ns = 0, longest_ns = 0;
  void begin(uint64_t what) { *this = {what, now_ns(), 0}; }
  void sign() {
    const int64_t now = now_ns();
    longest_ns = std::max(longest_ns, now - last_ns);
    last_ns = now;
  }
};

struct History {
  uint64_t phase = 0;
  std::array<int64_t, kVisits> longest_ns{};
  size_t visits = 0;
  bool by_workers = false;
};

std::mutex& mutex =
    *new std::mutex;  // of the histories, which a thread left behind may still add to
std::vector<History>& histories = *new std::vector<History>;

History& history_of(uint64_t phase) {
  for (auto& history : histories)
    if (history.phase == phase) return history;
  histories.emplace_back().phase = phase;
  return histories.back();
}

void add_visit(const Signs& signs, bool by_worker) {
  const std::lock_guard lock(mutex);
  History& history = history_of(signs.phase);
  if (by_worker && !history.by_workers) history.by_workers = true, history.visits = 0;
  if (by_worker != history.by_workers) return;
  history.longest_ns[history.visits++ % kVisits] = signs.longest_ns;
}

int64_t usual_ns(uint64_t phase) {
  const std::lock_guard lock(mutex);
  const History& history = history_of(phase);
  if (history.visits < kEnough) return 0;
  auto sorted = history.longest_ns;
  const auto end = sorted.begin() + static_cast<ptrdiff_t>(std::min(history.visits, kVisits));
  const auto middle = sorted.begin() + (end - sorted.begin()) / 2;
  std::nth_element(sorted.begin(), middle, end);
  return std::max<int64_t>(*middle, 1);
}

Pulse own;
Pulse* shown = &own;
thread_local Signs signs;
thread_local bool is_main = false;

}  // namespace

std::string Pulse::phase_name() const {
  const uint64_t letters = phase.load();
  const char* text = reinterpret_cast<const char*>(&letters);
  return {text, ::strnlen(text, sizeof letters)};
}

Pulse& pulse() { return *shown; }
void show_pulse_in(Pulse* shared) { shown = shared; }
bool pulse_is_shared() { return shown != &own; }

void enter_phase(const char* name, int64_t step) {
  if (is_main) {
    signs.sign();
    add_visit(signs, false);
  }
  is_main = true;
  signs.begin(packed(name));
  shown->step = step;
  shown->usual_ns = usual_ns(signs.phase);
  shown->phase = signs.phase;
  ++shown->moves;
}

void get_on() {
  if (signs.phase != 0) signs.sign();
  if (is_main || signs.phase == 0 || shown->phase == signs.phase) ++shown->moves;
}

WorkFor::WorkFor(const char* phase) { signs.begin(packed(phase)); }

WorkFor::~WorkFor() {
  get_on();
  add_visit(signs, true);
  signs = {};
}

Waiting::Waiting() : is_main_(is_main) {
  if (!is_main_) return;
  get_on();
  ++shown->waits;
}

Waiting::~Waiting() {
  if (!is_main_) return;
  signs.last_ns = now_ns();  // the wait was not its own
  ++shown->moves;
  --shown->waits;
}

}  // namespace lehr
