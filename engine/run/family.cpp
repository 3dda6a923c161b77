#include "engine/run/family.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/run/stop.h"

namespace lehr::run {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr auto kLook = Milliseconds(50);     // between two looks at all ranks
constexpr auto kCauses = Milliseconds(300);  // after a failure, until its cause is chosen
constexpr auto kLeave = Milliseconds(2000);  // for the others to end by themselves
constexpr auto kWake = Milliseconds(1000);   // after SIGCONT
constexpr auto kKill = Milliseconds(10000);  // after SIGKILL

double seconds(Standstill::Clock::duration d) { return std::chrono::duration<double>(d).count(); }

[[noreturn]] void fail(const std::string& what) {
  throw Error(Code::kRanks, fmt::format("{}: {}", what, std::strerror(errno)), "lehr launch");
}

// By the kernel, on the whole machine, since it started; 0 where it does not say.
int64_t kills_for_memory() {
  std::ifstream counters("/proc/vmstat");
  std::string name;
  for (int64_t count; counters >> name >> count;)
    if (name == "oom_kill") return count;
  return 0;
}

std::string ending(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("was killed by SIG{}", sigabbrev_np(WTERMSIG(status)));
  return fmt::format("ended with code {}", WEXITSTATUS(status));
}

bool ended_with(const std::optional<int>& status, Code code) {
  return status && WIFEXITED(*status) && WEXITSTATUS(*status) == static_cast<int>(code);
}

// Then what it had to say is said.
bool ended_with_own_code(int status) {
  return WIFEXITED(status) && (WEXITSTATUS(status) <= static_cast<int>(Code::kNonFinite) ||
                               WEXITSTATUS(status) == static_cast<int>(Code::kInterrupted));
}

// A socket for the ranks' store, and its port.
std::pair<int, int> listen_on_loopback() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(listener, 1024) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    fail("no port for the ranks' store");
  return {listener, ntohs(address.sin_port)};
}

}  // namespace

Family::Family(const Program& program, const SharedPulses& pulses, Relay& relay, int ranks,
               const Patience& patience)
    : program_(program),
      pulses_(pulses),
      relay_(relay),
      ranks_(ranks),
      patience_(patience),
      job_(unique_id()),
      kills_for_memory_(kills_for_memory()) {}

Family::~Family() {
  kill_all(false);
  relay_.forget();
}

void Family::start(const std::vector<std::string>& words, int attempt) {
  const auto [listener, port] = listen_on_loopback();
  for (int rank = 0; rank < ranks_; ++rank) {
    std::map<std::string, std::string> variables{
        {"LEHR_LAUNCH", "1"},
        {"RANK", std::to_string(rank)},
        {"WORLD_SIZE", std::to_string(ranks_)},
        {"LOCAL_RANK", std::to_string(rank)},
        {"LOCAL_WORLD_SIZE", std::to_string(ranks_)},
        {"MASTER_ADDR", "127.0.0.1"},
        {"MASTER_PORT", std::to_string(port)},
        {"TORCHELASTIC_RESTART_COUNT", std::to_string(attempt)},
        {"TORCHELASTIC_RUN_ID", job_}};
    if (rank == 0) variables["LEHR_STORE_FD"] = std::to_string(listener);
    pulses_.reset(rank);
    Child child{.standstill = Standstill(patience_)};
    child.pid = start_one(words, variables, rank, rank == 0 ? -1 : listener);
    children_.push_back(std::move(child));
  }
  ::close(listener);
}

pid_t Family::start_one(const std::vector<std::string>& words,
                        const std::map<std::string, std::string>& variables, int rank,
                        int close_fd) {
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) fail("no pipe for a rank");
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid < 0) fail("a rank cannot be started");
  // nothing of the launcher's may be unwound in its copy
  if (pid == 0)
    [&]() noexcept {
      // dies with the launcher, and gets a Ctrl-C through it alone
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(127);
      ::setpgid(0, 0);
      ::dup2(out[1], 1);
      ::dup2(err[1], 2);
      for (const int fd : {out[0], out[1], err[0], err[1], close_fd})
        if (fd >= 0) ::close(fd);
      for (const int fd : relay_.fds()) ::close(fd);
      for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
      ::unsetenv("TORCHELASTIC_ERROR_FILE");  // of the launcher, which says for all what it was
      ::prctl(PR_SET_NAME, ("lehr rank " + variables.at("RANK")).c_str());
      show_pulse_in(&pulses_.of(rank));
      std::exit(program_(words));
    }();
  ::close(out[1]);
  ::close(err[1]);
  relay_.add(rank, 1, out[0]);
  relay_.add(rank, 2, err[0]);
  return pid;
}

Family::End Family::run() {
  std::optional<Clock::time_point> failed;
  int told = 0;
  while (running() > 0) {
    if (const int signal = stop_signal(); signal != told) {
      signal_all(signal);
      told = signal;
    }
    if (interrupted_twice()) {
      kill_all(false);
      log_error("interrupted twice: what follows the last checkpoint is not saved");
      return {Code::kInterrupted, "interrupted twice", false};
    }
    relay_.read(kLook);
    reap();
    if (!failed && any_failed()) failed = Clock::now();
    if (!failed) {
      watch();
      continue;
    }
    const auto since = Clock::now() - *failed;
    // who only lost another ends quickly; the other may take longer to leave
    if (cause_.empty() && !was_stopped() && since > (knows_cause() ? kCauses : kLeave / 2))
      tell_cause();
    if (since > kLeave) kill_all(seconds(since) < patience_.timeout_s);
  }
  relay_.read(Milliseconds(0));
  relay_.flush();
  if (was_stopped()) return {Code::kStopped, "", true};
  if (any_failed() && cause_.empty()) tell_cause();
  if (!cause_.empty()) return {code_, cause_, curable_};
  for (const auto& child : children_)
    if (ended_with(child.status, Code::kStopped)) return {Code::kStopped, "", true};
  return {};
}

int Family::running() const {
  return static_cast<int>(
      std::count_if(children_.begin(), children_.end(), [](const Child& c) { return !c.status; }));
}

bool Family::is_failure(const Child& child) {
  return child.status && !ended_with(child.status, Code::kOk) &&
         !ended_with(child.status, Code::kStopped);
}

// lost the others, and so ended with them
bool Family::follows(const Child& child) {
  return ended_with(child.status, Code::kRanks) && child.stood.empty();
}

bool Family::any_failed() const {
  return std::any_of(children_.begin(), children_.end(), is_failure);
}

bool Family::knows_cause() const {
  return running() == 0 || std::any_of(children_.begin(), children_.end(),
                                       [](const Child& c) { return is_failure(c) && !follows(c); });
}

// Asked to, one has left with everything saved, and others may have lost it before they heard.
bool Family::was_stopped() const {
  return stop_signal() != 0 &&
         std::all_of(children_.begin(), children_.end(),
                     [](const Child& c) { return !is_failure(c) || follows(c); }) &&
         std::any_of(children_.begin(), children_.end(),
                     [](const Child& c) { return ended_with(c.status, Code::kStopped); });
}

void Family::reap() {
  for (auto& child : children_) {
    int status = 0;
    if (!child.status && ::waitpid(child.pid, &status, WNOHANG) == child.pid) child.status = status;
  }
}

void Family::signal_all(int signal) const {
  for (const auto& child : children_)
    if (!child.status) ::kill(child.pid, signal);
}

// Returns once they are gone.
void Family::kill_all(bool spare_savers) {
  std::vector<size_t> killed;
  for (size_t rank = 0; rank < children_.size(); ++rank) {
    if (children_[rank].status) continue;
    if (spare_savers && pulses_.of(static_cast<int>(rank)).saves > 0) {
      if (!std::exchange(waits_for_save_, true))
        log_info(fmt::format("rank {} still writes a checkpoint, which is awaited", rank));
      continue;
    }
    ::kill(children_[rank].pid, SIGKILL);
    killed_.push_back(children_[rank].pid);
    killed.push_back(rank);
  }
  const auto end = Clock::now() + kKill;
  for (const size_t rank : killed)
    while (reap(), !children_[rank].status) {
      if (Clock::now() > end) {
        log_error(
            fmt::format("rank {} (process {}) does not end when killed: a file system or a "
                        "device does not answer it",
                        rank, children_[rank].pid));
        children_[rank].status = SIGKILL;
        break;
      }
      ::usleep(1000);
    }
}

// The first that failed by itself; those that only lost the others end with kRanks.
void Family::tell_cause() {
  reap();
  int chosen = -1, weight = -1;
  for (size_t rank = 0; rank < children_.size(); ++rank) {
    const Child& child = children_[rank];
    if (!is_failure(child)) continue;
    if (std::find(killed_.begin(), killed_.end(), child.pid) != killed_.end()) continue;
    const int now = follows(child) ? 0 : 1;
    if (now > weight) chosen = static_cast<int>(rank), weight = now;
  }
  if (chosen < 0) chosen = 0;
  const Child& child = children_[static_cast<size_t>(chosen)];
  const int status = *child.status;
  const std::string said = pulses_.of(chosen).cause, last = relay_.last_line(chosen);
  cause_ = fmt::format("rank {} of {} {}", chosen, ranks_, ending(status));
  if (!child.stood.empty())
    cause_ = fmt::format("rank {} of {} {}, longer than parallelism.timeout, and was ended", chosen,
                         ranks_, child.stood);
  else if (!said.empty())
    cause_ += ": " + said;
  else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
           kills_for_memory() > kills_for_memory_)
    cause_ += ", as the kernel does when memory runs out (oom_kill of /proc/vmstat rose)";
  else if (!last.empty() && !ended_with_own_code(status))
    cause_ += "; its last line: " + last;
  code_ = WIFEXITED(status) ? static_cast<Code>(WEXITSTATUS(status)) : Code::kRanks;
  switch (code_) {
    case Code::kUsage:
    case Code::kRecipe:
    case Code::kData:
    case Code::kNonFinite:
    case Code::kInterrupted:
      curable_ = false;
      break;
    case Code::kInternal:
    case Code::kCheckpoint:
      curable_ = !pulses_.of(chosen).incurable;
      break;
    default:  // a signal, a lost rank, a library that ends the process in its own way
      code_ = Code::kRanks;
  }
  log_error(cause_);
}

void Family::watch() {
  if (patience_.heartbeat_s <= 0) return;
  for (int rank = 0; rank < ranks_; ++rank) {
    Child& child = children_[static_cast<size_t>(rank)];
    if (child.status || pulses_.of(rank).leaves) continue;
    watch_alive(rank, child);
    watch_moves(rank, child);
  }
}

// A process that does not run at all is woken, then ended.
void Family::watch_alive(int rank, Child& child) {
  const uint64_t alive = pulses_.of(rank).alive;
  const auto now = Clock::now();
  const double silent = seconds(now - child.seen);
  if (alive != child.alive) {
    if (child.woken) log_warning(fmt::format("rank {} goes on", rank));
    child.alive = alive, child.seen = now, child.woken = false;
  } else if (alive == 0) {
    child.seen = now;  // it has not begun to
  } else if (!child.woken && silent > patience_.heartbeat_s) {
    log_warning(
        fmt::format("rank {} has shown no sign of life for {:.1f} s; it is woken", rank, silent));
    ::kill(child.pid, SIGCONT);
    child.woken = true;
  } else if (child.woken && silent > patience_.heartbeat_s + seconds(kWake)) {
    log_warning(fmt::format("rank {} does not wake and is killed", rank));
    ::kill(child.pid, SIGKILL);
  }
}

// One whose main thread stands still is named, then ended.
void Family::watch_moves(int rank, Child& child) {
  const Pulse& pulse = pulses_.of(rank);
  switch (child.standstill.look(pulse, Clock::now())) {
    case Standstill::Verdict::kFine:
      break;
    case Standstill::Verdict::kBegins:
      log_warning(fmt::format("rank {} {}", rank, child.standstill.text(pulse)));
      break;
    case Standstill::Verdict::kEnds:
      log_warning(fmt::format("rank {} goes on", rank));
      break;
    case Standstill::Verdict::kOver:
      child.stood = child.standstill.text(pulse);
      ::kill(child.pid, SIGKILL);
  }
}

}  // namespace lehr::run
