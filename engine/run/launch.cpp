#include "engine/run/launch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/run/fields.h"
#include "engine/run/plan.h"
#include "engine/run/stop.h"
#include "engine/step/fields.h"

namespace lehr::run {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr auto kBeat = Milliseconds(100);     // between two signs of life
constexpr auto kFold = Milliseconds(100);     // how long a line waits for the same of another rank
constexpr auto kCauses = Milliseconds(300);   // after a failure, until its cause is chosen
constexpr auto kLeave = Milliseconds(2000);   // for the others to end by themselves
constexpr auto kWake = Milliseconds(1000);    // after SIGCONT
const std::string kIncurable = "-incurable";  // beside the file of a rank's error
constexpr int kFruitless = 3;                 // restarts without a committed step

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

[[noreturn]] void fail(const std::string& what) {
  throw Error(Code::kRanks, fmt::format("{}: {}", what, std::strerror(errno)), "lehr launch");
}

// A folder of this launch alone, and counters that it shares with its ranks.
class Shared {
 public:
  explicit Shared(int ranks) : bytes_(sizeof(std::atomic<uint64_t>) * static_cast<size_t>(ranks)) {
    char name[] = "/tmp/lehr-launch-XXXXXX";
    if (!::mkdtemp(name)) fail("no folder for the launch");
    folder_ = name;
    const int fd = ::open(beats_file().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes_)) != 0) fail(beats_file());
    void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    if (memory == MAP_FAILED) fail(beats_file());
    beats_ = static_cast<std::atomic<uint64_t>*>(memory);
  }
  ~Shared() {
    ::munmap(beats_, bytes_);
    remove_tree(folder_);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  std::string beats_file() const { return folder_ + "/beats"; }
  std::string folder_file() const { return folder_ + "/folder"; }
  std::string error_file(int rank) const { return fmt::format("{}/error-{}", folder_, rank); }
  uint64_t beat(int rank) const { return beats_[rank].load(std::memory_order_relaxed); }
  std::string error(int rank) const {
    return file_exists(error_file(rank)) ? read_file(error_file(rank), 1 << 16) : "";
  }
  bool is_incurable(int rank) const { return file_exists(error_file(rank) + kIncurable); }
  std::string run_folder() const {
    return file_exists(folder_file()) ? read_file(folder_file(), 1 << 12) : "";
  }

 private:
  size_t bytes_;
  std::string folder_;
  std::atomic<uint64_t>* beats_ = nullptr;
};

struct Child {
  pid_t pid = -1;
  int output = -1;   // read end of its stdout and stderr
  std::string rest;  // a line that is not complete
  std::string last;  // line that it has printed
  std::optional<int> status;
  uint64_t beat = 0;
  Clock::time_point seen = Clock::now();
  bool woken = false;
};

// The same line of several ranks comes out once. The lead's come at once and plain.
class Folding {
 public:
  explicit Folding(track::Terminal& terminal) : terminal_(terminal) {}
  void add(int rank, const std::string& line) {
    if (rank == 0) return terminal_.print(line);
    for (auto& held : held_)
      if (held.line == line) return held.ranks.push_back(rank);
    held_.push_back({line, {rank}, Clock::now()});
  }
  void flush(bool all) {
    while (!held_.empty() && (all || Clock::now() - held_.front().since > kFold)) {
      auto& held = held_.front();
      std::sort(held.ranks.begin(), held.ranks.end());
      terminal_.print(fmt::format("[rank{} {}] {}", held.ranks.size() > 1 ? "s" : "",
                                  fmt::join(held.ranks, ", "), held.line));
      held_.erase(held_.begin());
    }
  }

 private:
  struct Held {
    std::string line;
    std::vector<int> ranks;
    Clock::time_point since;
  };
  track::Terminal& terminal_;
  std::vector<Held> held_;
};

int64_t newest_step(const std::string& run_folder) {
  int64_t newest = -1;
  const std::string folder = join_path(run_folder, "checkpoints");
  if (run_folder.empty() || !file_exists(folder)) return newest;
  for (const auto& name : list_folder(folder))
    if (name.starts_with("step-"))
      newest = std::max<int64_t>(newest, std::strtoll(name.c_str() + 5, nullptr, 10));
  return newest;
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

// Then what it had to say is said.
bool ended_with_own_code(int status) {
  return WIFEXITED(status) && (WEXITSTATUS(status) <= static_cast<int>(Code::kNonFinite) ||
                               WEXITSTATUS(status) == static_cast<int>(Code::kInterrupted));
}

// One life of all ranks.
class Family {
 public:
  Family(const LaunchRequest& request, const Shared& shared, Folding& output, double heartbeat_s)
      : request_(request), shared_(shared), output_(output), heartbeat_s_(heartbeat_s) {}
  ~Family() { kill_all(SIGKILL); }

  struct End {
    Code code = Code::kOk;
    std::string cause;  // of a failure
    bool curable = true;
  };

  void start(const std::vector<std::string>& words, int attempt) {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener, 1024) != 0 ||
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      fail("no port for the ranks' store");
    for (int rank = 0; rank < request_.ranks; ++rank) {
      std::map<std::string, std::string> variables{
          {"LEHR_LAUNCH", "1"},
          {"RANK", std::to_string(rank)},
          {"WORLD_SIZE", std::to_string(request_.ranks)},
          {"LOCAL_RANK", std::to_string(rank)},
          {"LOCAL_WORLD_SIZE", std::to_string(request_.ranks)},
          {"MASTER_ADDR", "127.0.0.1"},
          {"MASTER_PORT", std::to_string(ntohs(address.sin_port))},
          {"TORCHELASTIC_RESTART_COUNT", std::to_string(attempt)},
          {"TORCHELASTIC_RUN_ID", job_},
          {"LEHR_HEARTBEAT_FILE", shared_.beats_file()},
          {"LEHR_ERROR_FILE", shared_.error_file(rank)},
          {"LEHR_FOLDER_FILE", shared_.folder_file()}};
      if (rank == 0) variables["LEHR_STORE_FD"] = std::to_string(listener);
      ::unlink(shared_.error_file(rank).c_str());
      children_.push_back(start_one(words, variables, rank == 0 ? -1 : listener));
    }
    ::close(listener);
  }

  // Until all have ended, or one has failed and the rest is ended too.
  End run() {
    std::optional<Clock::time_point> failed;
    int told = 0;
    while (running() > 0) {
      if (const int signal = stop_signal(); signal != told) {
        kill_all(signal);
        told = signal;
      }
      if (interrupted_twice()) {
        kill_all(SIGKILL);
        log_error("interrupted twice: what follows the last checkpoint is not saved");
        return {Code::kInterrupted, "interrupted twice", false};
      }
      read_output();
      reap();
      if (!failed && any_failed()) failed = Clock::now();
      // who only lost another ends quickly; the other may take longer to leave
      if (failed && cause_.empty() && !was_stopped() &&
          Clock::now() - *failed > (knows_cause() ? kCauses : kLeave / 2))
        tell_cause();
      if (failed && Clock::now() - *failed > kLeave) kill_all(SIGKILL);
      if (!failed) watch_heartbeats();
    }
    read_output();
    output_.flush(true);
    if (was_stopped()) return {Code::kStopped, "", true};
    if (any_failed() && cause_.empty()) tell_cause();
    if (!cause_.empty()) return {code_, cause_, curable_};
    for (const auto& child : children_)
      if (WEXITSTATUS(*child.status) == static_cast<int>(Code::kStopped))
        return {Code::kStopped, "", true};
    return {};
  }

 private:
  Child start_one(const std::vector<std::string>& words,
                  const std::map<std::string, std::string>& variables, int close_fd) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail("no pipe for a rank");
    const pid_t parent = ::getpid(), pid = ::fork();
    if (pid < 0) fail("a rank cannot be started");
    if (pid == 0) {
      // dies with the launcher, and gets a Ctrl-C through it alone
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(127);
      ::setpgid(0, 0);
      ::dup2(ends[1], 1);
      ::dup2(ends[1], 2);
      for (int fd : {ends[0], ends[1], close_fd})
        if (fd >= 0) ::close(fd);
      for (const auto& other : children_) ::close(other.output);
      for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
      ::prctl(PR_SET_NAME, ("lehr rank " + variables.at("RANK")).c_str());
      std::exit(request_.program(words));
    }
    ::close(ends[1]);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    Child child;
    child.pid = pid, child.output = ends[0];
    return child;
  }

  int running() const {
    return static_cast<int>(std::count_if(children_.begin(), children_.end(),
                                          [](const Child& c) { return !c.status; }));
  }

  static bool is_failure(const Child& child) {
    if (!child.status) return false;
    if (WIFSIGNALED(*child.status)) return true;
    const int code = WEXITSTATUS(*child.status);
    return code != 0 && code != static_cast<int>(Code::kStopped);
  }
  // lost the others, and so ended with them
  static bool follows(const Child& child) {
    return WIFEXITED(*child.status) && WEXITSTATUS(*child.status) == static_cast<int>(Code::kRanks);
  }
  bool knows_cause() const {
    return running() == 0 || std::any_of(children_.begin(), children_.end(), [](const Child& c) {
             return is_failure(c) && !follows(c);
           });
  }
  // Asked to, one has left with everything saved, and others may have lost it before they heard.
  bool was_stopped() const {
    return stop_signal() != 0 &&
           std::all_of(children_.begin(), children_.end(),
                       [](const Child& c) { return !is_failure(c) || follows(c); }) &&
           std::any_of(children_.begin(), children_.end(), [](const Child& c) {
             return c.status && WIFEXITED(*c.status) &&
                    WEXITSTATUS(*c.status) == static_cast<int>(Code::kStopped);
           });
  }
  bool any_failed() const { return std::any_of(children_.begin(), children_.end(), is_failure); }

  void read_output() {
    std::vector<pollfd> polls;
    for (const auto& child : children_)
      if (child.output >= 0) polls.push_back({child.output, POLLIN, 0});
    if (polls.empty())
      std::this_thread::sleep_for(Milliseconds(20));
    else
      ::poll(polls.data(), polls.size(), 50);
    for (size_t rank = 0; rank < children_.size(); ++rank) {
      Child& child = children_[rank];
      char buffer[4096];
      while (child.output >= 0) {
        const ssize_t n = ::read(child.output, buffer, sizeof buffer);
        if (n < 0) break;
        if (n == 0) {
          ::close(child.output);
          child.output = -1;
          if (!child.rest.empty()) add_line(static_cast<int>(rank), child.rest);
          child.rest.clear();
          break;
        }
        child.rest.append(buffer, static_cast<size_t>(n));
        for (size_t end; (end = child.rest.find('\n')) != std::string::npos;) {
          add_line(static_cast<int>(rank), child.rest.substr(0, end));
          child.rest.erase(0, end + 1);
        }
      }
    }
    output_.flush(false);
  }

  void add_line(int rank, const std::string& line) {
    output_.add(rank, line);
    if (!line.empty()) children_[static_cast<size_t>(rank)].last = line;
  }

  void reap() {
    for (auto& child : children_) {
      int status = 0;
      if (!child.status && ::waitpid(child.pid, &status, WNOHANG) == child.pid)
        child.status = status;
    }
  }

  void kill_all(int signal) {
    for (auto& child : children_) {
      if (child.status) continue;
      ::kill(child.pid, signal);
      if (signal == SIGKILL) {
        int status = 0;
        if (::waitpid(child.pid, &status, 0) == child.pid) child.status = status;
        killed_.push_back(child.pid);
      }
    }
  }

  // The first that failed by itself; those that only lost the others end with kRanks.
  void tell_cause() {
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
    const int status = *children_[static_cast<size_t>(chosen)].status;
    cause_ = fmt::format("rank {} of {} {}", chosen, request_.ranks, ending(status));
    if (const std::string error = shared_.error(chosen); !error.empty())
      cause_ += ": " + error;
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
             kills_for_memory() > kills_for_memory_)
      cause_ += ", as the kernel does when memory runs out (oom_kill of /proc/vmstat rose)";
    else if (const std::string& last = children_[static_cast<size_t>(chosen)].last;
             !last.empty() && !ended_with_own_code(status))
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
        curable_ = !shared_.is_incurable(chosen);
        break;
      default:  // a signal, a lost rank, a library that ends the process in its own way
        code_ = Code::kRanks;
    }
    log_error(cause_);
  }

  void watch_heartbeats() {
    for (size_t rank = 0; rank < children_.size(); ++rank) {
      Child& child = children_[rank];
      if (child.status) continue;
      const uint64_t beat = shared_.beat(static_cast<int>(rank));
      const auto now = Clock::now();
      if (beat != child.beat) {
        if (child.woken) log_warning(fmt::format("rank {} goes on", rank));
        child.beat = beat, child.seen = now, child.woken = false;
      } else if (child.beat == 0) {
        child.seen = now;  // it has not begun to
      } else if (!child.woken && seconds(now - child.seen) > heartbeat_s_) {
        log_warning(fmt::format("rank {} has shown no sign of life for {:.1f} s; it is woken", rank,
                                seconds(now - child.seen)));
        ::kill(child.pid, SIGCONT);
        child.woken = true;
      } else if (child.woken && now - child.seen > kWake + Milliseconds(static_cast<int64_t>(
                                                               heartbeat_s_ * 1e3))) {
        log_warning(fmt::format("rank {} does not wake and is killed", rank));
        ::kill(child.pid, SIGTERM);
        ::kill(child.pid, SIGKILL);
      }
    }
  }

  const LaunchRequest& request_;
  const Shared& shared_;
  Folding& output_;
  const double heartbeat_s_;
  const std::string job_ = unique_id();
  std::vector<Child> children_;
  std::vector<pid_t> killed_;  // by us, after a failure
  const int64_t kills_for_memory_ = kills_for_memory();
  std::string cause_;
  Code code_ = Code::kOk;
  bool curable_ = true;
};

}  // namespace

Code launch(const LaunchRequest& request, track::Terminal& terminal) {
  const recipe::Recipe recipe = load_recipe(request.recipe, request.overrides);
  const int64_t most = recipe.get<JobFields>().max_restarts;
  const double heartbeat = recipe.get<step::ParallelismFields>().heartbeat.value;
  install_stop_signals(false);
  const Shared shared(request.ranks);
  Folding output(terminal);
  int fruitless = 0;
  int64_t committed = -1;
  for (int attempt = 0;; ++attempt) {
    std::vector<std::string> words{"train", request.recipe};
    for (const auto& override : request.overrides) words.insert(words.end(), {"--set", override});
    const std::string begun = attempt == 0 ? "" : shared.run_folder();
    const std::string folder = begun.empty() ? request.run : begun;
    if (!folder.empty()) words.insert(words.end(), {"--run", folder});
    if (request.fresh && (attempt == 0 || folder.empty())) words.emplace_back("--fresh");
    if (request.approximate) words.emplace_back("--allow-approximate-resume");
    Family family(request, shared, output, heartbeat);
    family.start(words, attempt);
    const Family::End end = family.run();
    if (end.cause.empty()) return end.code;
    if (!end.curable || stop_requested()) return end.code;
    const int64_t now = newest_step(shared.run_folder());
    fruitless = now > committed ? 1 : fruitless + 1;
    committed = std::max(committed, now);
    if (attempt >= most)
      throw Error(Code::kRanks, fmt::format("{} (after {} restarts)", end.cause, attempt),
                  "job.max_restarts", "see the first failure above; the same command continues");
    if (fruitless > kFruitless)
      throw Error(Code::kRanks,
                  fmt::format("{} ({} restarts without a new checkpoint)", end.cause, kFruitless),
                  "lehr launch",
                  "it fails before checkpoint.interval; see the first failure above");
    terminal.print(fmt::format("restarting all {} ranks from {} ({} of {} restarts)", request.ranks,
                               now < 0 ? std::string("the start") : fmt::format("step {}", now),
                               attempt + 1, most));
  }
}

Code launch_once(const Program& program, int ranks, const std::vector<std::string>& words,
                 track::Terminal& terminal) {
  install_stop_signals(false);
  LaunchRequest request;
  request.program = program, request.ranks = ranks;
  const Shared shared(ranks);
  Folding output(terminal);
  Family family(request, shared, output, 0);
  family.start(words, 0);
  return family.run().code;
}

struct Heartbeat::State {
  std::atomic<uint64_t>* beats = nullptr;
  size_t bytes = 0;
  std::atomic<bool> stop{false};
  std::thread thread;
};

Heartbeat::Heartbeat() {
  const char* file = std::getenv("LEHR_HEARTBEAT_FILE");
  const char* rank = std::getenv("RANK");
  if (!file || !rank) return;
  const int fd = ::open(file, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  const off_t bytes = ::lseek(fd, 0, SEEK_END);
  void* memory =
      ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (memory == MAP_FAILED) return;
  state_ = new State;
  state_->beats = static_cast<std::atomic<uint64_t>*>(memory);
  state_->bytes = static_cast<size_t>(bytes);
  state_->thread = std::thread([state = state_, mine = std::atoi(rank)] {
    while (!state->stop) {
      state->beats[mine].fetch_add(1, std::memory_order_relaxed);
      std::this_thread::sleep_for(kBeat);
    }
  });
}

Heartbeat::~Heartbeat() {
  if (!state_) return;
  state_->stop = true;
  state_->thread.join();
  ::munmap(state_->beats, state_->bytes);
  delete state_;
}

void tell_launcher_folder(const std::string& folder) {
  if (const char* file = std::getenv("LEHR_FOLDER_FILE")) std::ofstream(file) << folder;
}

void tell_launcher_incurable() {
  if (const char* file = std::getenv("LEHR_ERROR_FILE")) std::ofstream(file + kIncurable) << "1";
}

void tell_launcher_error(const std::string& message) {
  if (const char* file = std::getenv("LEHR_ERROR_FILE")) std::ofstream(file) << message;
  if (const char* file = std::getenv("TORCHELASTIC_ERROR_FILE"))
    std::ofstream(file) << nlohmann::json{
        {"message",
         {{"message", message},
          {"extraInfo", {{"timestamp", std::to_string(std::time(nullptr))}}}}}};
}

}  // namespace lehr::run
