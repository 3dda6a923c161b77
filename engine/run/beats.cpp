#include "engine/run/beats.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/base/error.h"
#include "engine/base/leave.h"
#include "engine/base/log.h"

namespace lehr::run {
namespace {

using Clock = Standstill::Clock;

constexpr auto kBeat = std::chrono::milliseconds(100);
constexpr double kLongestBeat_s = 0.5;  // that counts as one: beyond it the process did not run
constexpr double kTimes = 10;           // what is usual, or the heartbeat in a new phase
constexpr int64_t kWork_ns = 1000000;   // of a beat: less, and the process only waits

int64_t cpu_ns() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return used.tv_sec * 1000000000L + used.tv_nsec;
}

}  // namespace

Standstill::Verdict Standstill::look(const Pulse& pulse, Clock::time_point now) {
  const uint64_t alive = pulse.alive, moves = pulse.moves;
  if (alive == alive_) return Verdict::kFine;
  const double beat = std::chrono::duration<double>(now - seen_).count();
  alive_ = alive, seen_ = now;
  if (moves != moves_ || pulse.waits > 0 || patience_.heartbeat_s <= 0) {
    moves_ = moves, stands_s_ = 0;
    return std::exchange(is_named_, false) ? Verdict::kEnds : Verdict::kFine;
  }
  stands_s_ += std::min(beat, kLongestBeat_s);
  const double usual_s = static_cast<double>(pulse.usual_ns) / 1e9;
  const double limit_s = usual_s > 0 ? std::max(patience_.heartbeat_s, kTimes * usual_s)
                                     : kTimes * patience_.heartbeat_s;
  if (stands_s_ > std::max(patience_.timeout_s, limit_s)) return Verdict::kOver;
  if (is_named_ || stands_s_ <= limit_s) return Verdict::kFine;
  is_named_ = true;
  return Verdict::kBegins;
}

std::string Standstill::text(const Pulse& pulse) const {
  const int64_t step = pulse.step;
  return fmt::format("has been in `{}`{} for {:.0f} s", pulse.phase_name(),
                     step > 0 ? fmt::format(" of step {}", step) : "", stands_s_);
}

SharedPulses::SharedPulses(int ranks) : bytes_(sizeof(Pulse) * static_cast<size_t>(ranks)) {
  void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw Error(Code::kRanks, fmt::format("no memory to watch {} ranks", ranks), "lehr launch");
  pulses_ = static_cast<Pulse*>(memory);
}

SharedPulses::~SharedPulses() { ::munmap(pulses_, bytes_); }

void SharedPulses::reset(int rank) const {
  Pulse& pulse = of(rank);
  pulse.alive = pulse.moves = pulse.phase = 0;
  pulse.step = pulse.usual_ns = 0;
  pulse.waits = pulse.saves = 0;
  pulse.incurable = pulse.leaves = false;
  pulse.cause[0] = '\0';
}

struct Watch::State {
  std::string who;
  std::mutex mutex;
  std::condition_variable ended;
  bool has_ended = false;
  std::optional<Standstill> standstill;
  Patience patience;
  std::thread thread;

  // in the thread
  void beat(int64_t* cpu_before) {
    Pulse& shown = pulse();
    const int64_t cpu = cpu_ns();
    if (shown.usual_ns == 0 && cpu - *cpu_before > kWork_ns) ++shown.moves;
    *cpu_before = cpu;
    ++shown.alive;
    if (!standstill || pulse_is_shared()) return;
    switch (standstill->look(shown, Clock::now())) {
      case Standstill::Verdict::kFine:
        break;
      case Standstill::Verdict::kBegins:
        log_warning(fmt::format("{} {}", who, standstill->text(shown)));
        break;
      case Standstill::Verdict::kEnds:
        log_warning(fmt::format("{} goes on", who));
        break;
      case Standstill::Verdict::kOver:
        const std::string why = fmt::format(
            "{} {}, and ends\n  it does not wait longer than parallelism.timeout; the "
            "same command continues from the last checkpoint",
            who, standstill->text(shown));
        log_error(why);
        tell_launcher(why);
        leave(Code::kRanks, patience.timeout_s);
    }
  }
};

Watch::Watch(int rank, int ranks) : state_(std::make_unique<State>()) {
  state_->who = ranks == 1 ? "training" : fmt::format("rank {} of {}", rank, ranks);
  state_->thread = std::thread([state = state_.get()] {
    int64_t cpu = cpu_ns();
    std::unique_lock lock(state->mutex);
    do state->beat(&cpu);
    while (!state->ended.wait_for(lock, kBeat, [state] { return state->has_ended; }));
  });
}

Watch::~Watch() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->has_ended = true;
  }
  state_->ended.notify_all();
  state_->thread.join();
}

void Watch::set(const Patience& patience) {
  const std::lock_guard lock(state_->mutex);
  state_->patience = patience;
  state_->standstill.emplace(patience);
}

}  // namespace lehr::run
