#include "engine/dist/session.h"

#include <c10/util/Flags.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <numeric>
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

// for a verdict to reach the others before the store goes
constexpr auto kVerdict = Milliseconds(300);
constexpr auto kGoodbye = Milliseconds(2000);   // for the others to leave before the lead
constexpr auto kPatience = Milliseconds(1000);  // beyond a limit that a call keeps by itself

std::vector<uint8_t> as_bytes(const std::vector<int>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(int));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}
std::vector<int> as_ints(const std::vector<uint8_t>& bytes) {
  std::vector<int> values(bytes.size() / sizeof(int));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(int));
  return values;
}

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

struct Meeting {
  StorePointer store;
  Place place;
  Milliseconds timeout, heartbeat;
  std::string what, key;
};

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

// Through the store, so that whoever does not come is known. The lead's clock decides who that is;
// the others' runs a little longer, so that all say the same.
std::vector<int> missing_at(const Meeting& m) {
  const std::string verdict = m.key + "verdict";
  std::vector<int> missing(static_cast<size_t>(m.place.size));
  std::iota(missing.begin(), missing.end(), 0);
  const bool decides = m.place.rank == 0;
  const auto begin = Clock::now();
  const auto end = begin + m.timeout + (decides ? Milliseconds(0) : kVerdict);
  bool is_said = !decides;
  try {
    m.store->set(m.key + std::to_string(m.place.rank), "here");
    for (auto pause = Milliseconds(1); Clock::now() < end;
         pause = std::min(2 * pause, Milliseconds(50))) {
      std::erase_if(missing, [&](int r) { return m.store->check({m.key + std::to_string(r)}); });
      if (missing.empty()) return missing;
      if (!decides && m.store->check({verdict})) return as_ints(m.store->get(verdict));
      if (!is_said && Clock::now() - begin > m.heartbeat) {
        is_said = true;
        log_warning(fmt::format("after {} s at {}, of {} ranks these have not come yet: {}",
                                m.heartbeat.count() / 1000.0, m.what, m.place.size,
                                fmt::join(missing, ", ")));
      }
      std::this_thread::sleep_for(pause);
    }
    if (decides) {
      m.store->set(verdict, as_bytes(missing));
      std::this_thread::sleep_for(kVerdict);
    }
  } catch (const std::exception&) {
    if (Clock::now() + kVerdict < end) throw;  // later, whoever serves the store gave up first
  }
  return missing;
}

// A rank's note: which call, and the rest of the sentence.
void put_note(c10d::Store& store, int rank, const std::string& call, const std::string& rest) {
  store.set("failed/" + std::to_string(rank), call + '\n' + rest);
}

constexpr const char* kAsked = "asked";

// After a failure each tells the others where it was, for as long as the store lives.
std::string compare_notes(c10d::Store& store, const Place& place, const std::string& mine,
                          const std::string& rest) {
  std::vector<int> silent(static_cast<size_t>(place.size)), alike;
  std::iota(silent.begin(), silent.end(), 0);
  std::string said;
  put_note(store, place.rank, mine, rest);
  store.set(kAsked, "yes");
  const auto end = Clock::now() + 2 * kVerdict;
  const auto hear = [&](int r) {
    const std::string key = "failed/" + std::to_string(r);
    if (!store.check({key})) return false;
    const std::string note = store.get_to_str(key);
    const size_t middle = note.find('\n');
    if (const std::string call = note.substr(0, middle); call != mine)
      said += fmt::format("; rank {} was in {}{}", r, call, note.substr(middle + 1));
    else if (r != place.rank)
      alike.push_back(r);
    return true;
  };
  while (std::erase_if(silent, hear), !silent.empty() && Clock::now() < end)
    std::this_thread::sleep_for(Milliseconds(10));
  store.add("heard", 1);  // the store stays until all have
  while (place.rank == 0 && store.add("heard", 0) < place.size && Clock::now() < end)
    std::this_thread::sleep_for(Milliseconds(10));
  std::sort(alike.begin(), alike.end());
  if (!alike.empty()) said += fmt::format("; in the same call: rank {}", fmt::join(alike, ", "));
  store.add("left", 1);
  if (!silent.empty()) said += fmt::format("; nothing heard of rank {}", fmt::join(silent, ", "));
  return said;
}

// Another rank has failed, so no call ends well. Most fail by themselves, because connections
// close; Gloo can overlook that one was reset, and would wait for the whole timeout (seen between
// hosts). Nothing wakes such a call, so the process ends, as with NCCL's watchdog.
[[noreturn]] void leave_a_call_that_cannot_end(const Place& place, Milliseconds timeout,
                                               const Whereabouts& where) {
  const auto begin = Clock::now();
  while (true) {
    std::this_thread::sleep_for(kVerdict / 3);
    const auto call = where.call();
    if (!call || Clock::now() - std::max(begin, call->begin) < kGoodbye) continue;
    const auto [text, rest] = where.now();
    const std::string why =
        fmt::format("rank {} of {}: {}{}: another rank has failed, and this call does not end",
                    place.rank, place.size, text, rest);
    log_error(why);
    tell_launcher(why);
    leave(Code::kRanks, std::chrono::duration<double>(timeout).count());
  }
}

// Answers for a rank that hangs elsewhere than in a call, or computes; on a connection of its own,
// left behind with its thread, which no other can wake.
void answer_when_asked(const StorePointer& own, const Place& place, Milliseconds timeout,
                       const std::shared_ptr<const Whereabouts>& where, bool ends_stuck_calls) {
  const auto pause = std::max(Milliseconds(200), Milliseconds(place.size));  // of a busy store
  std::thread([store = own, place, timeout, where, pause, ends_stuck_calls]() mutable {
    for (bool has_answered = false; !has_answered;) {
      std::this_thread::sleep_for(pause);
      try {
        const StorePointer job = c10::make_intrusive<c10d::PrefixStore>(prefix(place), store);
        while (!job->check({kAsked})) std::this_thread::sleep_for(pause);
        std::this_thread::sleep_for(kVerdict / 3);  // what fails by itself says more
        if (const auto [call, rest] = where->now();
            !job->check({"failed/" + std::to_string(place.rank)}))
          put_note(*job, place.rank, call, rest);
        has_answered = true;
      } catch (const std::exception&) {
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

std::pair<std::string, std::string> Whereabouts::now() const {
  const std::lock_guard lock(mutex_);
  const std::chrono::duration<double> waited = Clock::now() - (call_ ? call_->begin : since_);
  const std::string place = phase_ ? fmt::format(" (step {}, {})", step_, phase_) : "";
  return {call_ ? call_->text() : "no call", fmt::format("{} for {:.1f} s", place, waited.count())};
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
    if (is_server) {
      raise_descriptor_limit();
      options.masterListenFd = place.listening_fd ? place.listening_fd : listen_at(place);
    }
    // the client waits without end for the first words of whatever takes its connection
    const auto connect = [place, options] {
      StorePointer store = c10::make_intrusive<c10d::TCPStore>(place.address, options);
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
      store->add("left", 1);
      const auto end = Clock::now() + kGoodbye;
      while (place.rank == 0 && store->add("left", 0) < place.size && Clock::now() < end)
        std::this_thread::sleep_for(Milliseconds(5));
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
                           timeout_.count() / 1000.0, what, place_.size, fmt::join(missing, ", ")),
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
    const auto [text, rest] = where_->now();
    where_->enter(std::nullopt);
    const std::string why = first_line(e.what());
    std::string others;
    failed_ = true;
    try {
      others = in_time(kGoodbye, [store = store_, place = place_, text, rest] {
        return compare_notes(*store, place, text, rest);
      });
    } catch (const std::exception&) {  // the store has gone with its rank
    }
    throw Error(Code::kRanks,
                fmt::format("rank {} of {}: {}, failed{}: {}{}", place_.rank, place_.size, text,
                            rest, why, others),
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
