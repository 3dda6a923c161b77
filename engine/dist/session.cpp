#include "engine/dist/session.h"

#include <c10/util/Flags.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <memory>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "engine/base/leave.h"
#include "engine/base/log.h"
#include "engine/base/pulse.h"
#include "engine/dist/address.h"
#include "engine/dist/world.h"

C10_DECLARE_int(caffe2_log_level);

namespace lehr::dist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kFirst = Milliseconds(100);
constexpr auto kGoodbye = Milliseconds(2000);   // for the others to leave before the lead
constexpr auto kPatience = Milliseconds(1000);  // beyond a limit that a call keeps by itself

// Work that may wait without end, as the store's client does for a host that is cut off. It is then
// left behind on its thread, so it owns what it uses.
// `say` is called where it takes longer than `heartbeat`.
template <class Work>
auto in_time(Milliseconds limit, Work work, Milliseconds heartbeat = Milliseconds::max(),
             const std::function<void()>& say = {}) {
  const Milliseconds all = limit;
  std::packaged_task<decltype(work())()> task(std::move(work));
  auto result = task.get_future();
  std::thread(std::move(task)).detach();
  if (heartbeat < limit && result.wait_for(heartbeat) != std::future_status::ready)
    say(), limit -= heartbeat;
  if (result.wait_for(limit) != std::future_status::ready)
    throw std::runtime_error(fmt::format("no answer for {} s", all.count() / 1000.0));
  return result.get();
}

// Two jobs that meet at one store do not mix.
std::string prefix(const Place& place) {
  return fmt::format("lehr/{}/{}", place.job, place.attempt);
}

void require_own_job(c10d::Store& store, const Place& place) {
  if (place.job.empty()) return;
  const auto mine = std::vector<uint8_t>(place.job.begin(), place.job.end());
  const auto first = store.compareSet("lehr/job", {}, mine);
  if (first == mine) return;
  throw Error(
      Code::kRanks,
      fmt::format("the store at {}:{} is that of job {}, and rank {} is of job {}", place.address,
                  place.port, std::string(first.begin(), first.end()), place.rank, place.job),
      "", "two jobs were given one address and port: set another MASTER_PORT");
}

// "a sum, call 812 (step 14, step) for 0.2 s"
std::string text_of(const Note& note) {
  return fmt::format("{}{} for {:.1f} s", note.call, note.place, note.seconds);
}

std::string first_line(const char* text) {
  const std::string all = text;
  return all.substr(0, all.find('\n'));
}

bool on_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
  const uint32_t ip = ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr);
  return ip >> 24 == 127;
}

// Of whoever waits in vain for the store: what answers at its address.
std::string heard_at(const Place& place) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int unknown =
      getaddrinfo(place.address.c_str(), std::to_string(place.port).c_str(), &hints, &found);
  if (unknown != 0) return fmt::format("the address is not known: {}", gai_strerror(unknown));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  std::string heard;
  for (const addrinfo* at = found; at; at = at->ai_next) {
    const int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    const timeval patience{0, 500000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);  // of connect too
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
      const bool refused = errno == ECONNREFUSED;
      heard = refused ? "nothing listens there" : "it cannot be reached";
    } else {
      // some speak first, others when they are asked
      char text[60];
      constexpr char kAsk[] = "GET / HTTP/1.0\r\n\r\n";
      ssize_t n = recv(fd, text, sizeof text, 0);
      if (n < 0 && send(fd, kAsk, sizeof kAsk - 1, MSG_NOSIGNAL) > 0)
        n = recv(fd, text, sizeof text, 0);
      std::string said(text, static_cast<size_t>(std::max<ssize_t>(n, 0)));
      said = said.substr(0, said.find_first_of("\r\n"));
      for (char& c : said)
        if (c < 0x20 || c == 0x7f) c = '?';
      heard = said.empty() ? "something there takes connections and says nothing"
                           : fmt::format("something else answers there: \"{}\"", said);
    }
    close(fd);
    if (heard.starts_with("something")) break;
  }
  return heard;
}

// A socket that listens where `place` says the store is, and nowhere else; c10d's own listens on
// every interface. None where that address is not this node's own (a service in front of it), or is
// a host's name that for several nodes is its loopback (Debian's /etc/hosts puts the own one
// there).
std::optional<int> listen_at(const Place& place) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(place.address.c_str(), std::to_string(place.port).c_str(), &hints, &found) != 0)
    return std::nullopt;
  const bool for_other_hosts = place.local_size < place.size && !is_loopback(place.address);
  std::optional<int> listening;
  for (const addrinfo* at = found; at && !listening; at = at->ai_next) {
    if (for_other_hosts && on_loopback(at->ai_addr)) continue;
    const int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, 4096) == 0)
      listening = fd;
    else
      close(fd);
  }
  freeaddrinfo(found);
  return listening;
}

// Whoever connects to the store, and stays, costs it a descriptor.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Another rank has failed, so no call ends well. Most fail by themselves, because connections
// close; Gloo can overlook that one was reset, and would wait for the whole timeout (seen between
// hosts). Nothing wakes such a call, so the process ends, as with NCCL's watchdog.
[[noreturn]] void leave_a_call_that_cannot_end(const Place& place, Milliseconds timeout,
                                               const Whereabouts& where) {
  const auto begin = Clock::now();
  while (true) {
    std::this_thread::sleep_for(kFirst);
    const auto call = where.call();
    if (!call || Clock::now() - std::max(begin, call->begin) < kGoodbye) continue;
    const std::string why =
        fmt::format("rank {} of {}: {}: another rank has failed, and this call does not end",
                    place.rank, place.size, text_of(where.now()));
    log_error(why);
    tell_launcher(why);
    leave(Code::kRanks, std::chrono::duration<double>(timeout).count());
  }
}

// The lead, who serves the store, until all have added themselves.
void wait_for_all(c10d::Store& store, const Place& place, const char* key, Milliseconds limit) {
  const auto end = Clock::now() + limit;
  store.add(key, 1);
  while (place.rank == 0 && store.add(key, 0) < place.size && Clock::now() < end)
    std::this_thread::sleep_for(Milliseconds(5));
}

// Answers for a rank that hangs elsewhere than in a call, or computes, and sums up for all where it
// is the lead; on a connection of its own, left behind with its thread, which no other can wake.
void answer_when_asked(const StorePointer& own, const Place& place, Milliseconds timeout,
                       const std::shared_ptr<const Whereabouts>& where, bool ends_stuck_calls) {
  std::thread([store = own, place, timeout, where, ends_stuck_calls]() mutable {
    for (bool has_answered = false; !has_answered;) {
      try {
        Notes notes(c10::make_intrusive<c10d::PrefixStore>(prefix(place), store), place);
        while (!notes.are_asked_for(std::chrono::hours(1))) continue;
        std::this_thread::sleep_for(kFirst);  // what fails by itself says more
        notes.leave(where->now(), /*asks=*/false);
        if (place.rank == 0) notes.sum_up();
        has_answered = true;
      } catch (const std::exception&) {
        std::this_thread::sleep_for(kFirst);
        try {
          store = store->clone();  // this connection was reset
        } catch (const std::exception&) {
          return;  // nobody serves the store: the job has ended
        }
      }
    }
    if (ends_stuck_calls) leave_a_call_that_cannot_end(place, timeout, *where);
  }).detach();
}

}  // namespace

std::string Call::text() const { return fmt::format("{}, call {}", what, number); }

void Whereabouts::enter(const char* phase, int64_t step) {
  const std::lock_guard lock(mutex_);
  phase_ = phase, step_ = step, since_ = Clock::now();
}

void Whereabouts::enter(const std::optional<Call>& call) {
  const std::lock_guard lock(mutex_);
  call_ = call;
  if (!call) since_ = Clock::now();
}

Note Whereabouts::now() const {
  const std::lock_guard lock(mutex_);
  const std::chrono::duration<double> waited = Clock::now() - (call_ ? call_->begin : since_);
  return {call_ ? call_->text() : "no call",
          phase_ ? fmt::format(" (step {}, {})", step_, phase_) : "", waited.count()};
}

std::optional<Call> Whereabouts::call() const {
  const std::lock_guard lock(mutex_);
  return call_;
}

Session::Session(const Place& place, Milliseconds timeout, Milliseconds heartbeat,
                 bool ends_stuck_calls)
    : place_(place), timeout_(timeout), heartbeat_(heartbeat) {
  const Waiting waiting;
  signal(SIGPIPE, SIG_IGN);  // Gloo writes to ranks that may be gone
  // what c10d logs of those, with stack traces, our errors say in a line
  FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, 2);
  const bool is_server = place.rank == 0 && !place.agent_keeps_store;
  try {
    c10d::TCPStoreOptions options;
    options.port = place.port;
    options.isServer = is_server;
    options.numWorkers = static_cast<size_t>(place.size);
    options.waitWorkers = false;  // meet() waits, and names who is missing
    options.timeout = timeout_;
    raise_descriptor_limit();
    if (is_server)
      options.masterListenFd = place.listening_fd ? place.listening_fd : listen_at(place);
    // the client waits without end for the first words of whatever takes its connection
    const auto connect = [place, options, count = calls_of_store_] {
      StorePointer store = c10::make_intrusive<CountedStore>(
          c10::make_intrusive<c10d::TCPStore>(place.address, options), count);
      require_own_job(*store, place);
      return std::pair(store, store->clone());
    };
    const auto [server, own] = in_time(timeout_, connect, heartbeat_, [&] {
      log_warning(fmt::format("rank {} waits for the store at {}:{}: {}", place.rank, place.address,
                              place.port, heard_at(place)));
    });
    server_ = server;
    store_ = c10::make_intrusive<c10d::PrefixStore>(prefix(place), server_);
    answer_when_asked(own, place, timeout_, where_, ends_stuck_calls);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    const std::string heard = is_server ? "" : "; " + heard_at(place);
    throw Error(Code::kRanks,
                fmt::format("rank {} cannot reach the store at {}:{}: {}{}", place.rank,
                            place.address, place.port, first_line(e.what()), heard),
                "", "see that rank 0 runs and that its address and port can be reached");
  }
}

Session::~Session() {
  if (failed_) return;
  // rank 0 serves the store, and leaves last
  try {
    in_time(kGoodbye + kPatience, [store = store_, place = place_] {
      wait_for_all(*store, place, "left", kGoodbye);
      return true;
    });
  } catch (const std::exception&) {  // whoever is gone has said why
  }
}

void Session::meet(const std::string& what) {
  const Waiting waiting;
  const Meeting meeting{store_,     place_, timeout_,
                        heartbeat_, what,   fmt::format("meeting/{}/", meetings_++)};
  std::vector<int> missing;
  try {
    missing = in_time(timeout_ + kPatience, [meeting] { return missing_at(meeting); });
  } catch (const std::exception& e) {
    failed_ = true;
    throw Error(Code::kRanks,
                fmt::format("rank {} cannot reach the store at {}: {}", place_.rank, what,
                            first_line(e.what())),
                "", "see that rank 0 still runs and that this host reaches its");
  }
  if (missing.empty()) return;
  failed_ = true;
  throw Absent(fmt::format("after {} s at {}, of {} ranks these have not come: {}",
                           timeout_.count() / 1000.0, what, place_.size, list_of(missing)),
               missing);
}

Call Session::begin(const char* what) { return {what, ++calls_, Clock::now()}; }

void Session::guarded(const Call& call, const std::function<void()>& work) {
  const Waiting waiting;
  where_->enter(call);
  try {
    work();
    where_->enter(std::nullopt);
    return;
  } catch (const std::exception& e) {
    const Note mine = where_->now();
    where_->enter(std::nullopt);
    const std::string why = first_line(e.what());
    std::string others;
    failed_ = true;
    try {
      others = in_time(kGoodbye, [store = store_, place = place_, mine] {
        Notes notes(store, place);
        notes.leave(mine, /*asks=*/true);
        std::string others = notes.heard(mine);
        wait_for_all(*store, place, "heard", kGoodbye / 4);  // the store stays until all have
        store->add("left", 1);
        return others;
      });
    } catch (const std::exception&) {  // the store has gone with its rank
    }
    throw Error(Code::kRanks,
                fmt::format("rank {} of {}: {}, failed{} for {:.1f} s: {}{}", place_.rank,
                            place_.size, mine.call, mine.place, mine.seconds, why, others),
                "", "another rank has ended or hangs; its own message says why");
  }
}

void Session::guarded_in_time(const Call& call, const std::function<void()>& work) {
  guarded(call, [&] {
    in_time(timeout_ + kPatience, [work] {
      work();
      return true;
    });
  });
}

}  // namespace lehr::dist
