// Ranks that are processes, over c10d's Gloo group and TCPStore. The only file that sees either;
// their signatures drift between releases of LibTorch.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <numeric>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "engine/base/error.h"
#include "engine/dist/address.h"
#include "engine/dist/world.h"

namespace lehr::dist {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

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
template <class Work>
auto in_time(Milliseconds limit, Work work) {
  std::packaged_task<decltype(work())()> task(std::move(work));
  auto result = task.get_future();
  std::thread(std::move(task)).detach();
  if (result.wait_for(limit) != std::future_status::ready)
    throw std::runtime_error(fmt::format("no answer for {} s", limit.count() / 1000.0));
  return result.get();
}

struct Meeting {
  c10::intrusive_ptr<c10d::Store> store;
  Place place;
  Milliseconds timeout;
  std::string key;
};

std::string first_line(const char* text) {
  const std::string all = text;
  return all.substr(0, all.find('\n'));
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
  const uint32_t ip = ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr);
  return ip >> 24 == 127;
}

// A socket that listens where `place` says the store is, and nowhere else; c10d's own listens on
// every interface. None where that address is not this node's own (a service in front of it), or
// for several nodes is its loopback (Debian's /etc/hosts puts a host's own name there).
std::optional<int> listen_at(const Place& place) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(place.address.c_str(), std::to_string(place.port).c_str(), &hints, &found) != 0)
    return std::nullopt;
  std::optional<int> listening;
  for (const addrinfo* at = found; at && !listening; at = at->ai_next) {
    if (place.local_size < place.size && is_loopback(at->ai_addr)) continue;
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
  const auto end = Clock::now() + m.timeout + (decides ? Milliseconds(0) : kVerdict);
  try {
    m.store->set(m.key + std::to_string(m.place.rank), "here");
    for (auto pause = Milliseconds(1); Clock::now() < end;
         pause = std::min(2 * pause, Milliseconds(50))) {
      std::erase_if(missing, [&](int r) { return m.store->check({m.key + std::to_string(r)}); });
      if (missing.empty()) return missing;
      if (!decides && m.store->check({verdict})) return as_ints(m.store->get(verdict));
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

// After a failure each tells the others where it was, for as long as the store lives.
std::string compare_notes(c10d::Store& store, const Place& place, const std::string& mine) {
  std::vector<int> silent(static_cast<size_t>(place.size));
  std::iota(silent.begin(), silent.end(), 0);
  std::string said;
  store.set("failed/" + std::to_string(place.rank), mine);
  const auto end = Clock::now() + 2 * kVerdict;
  const auto hear = [&](int r) {
    const std::string key = "failed/" + std::to_string(r);
    if (!store.check({key})) return false;
    if (const std::string other = store.get_to_str(key); other != mine)
      said += fmt::format("; rank {} was in {}", r, other);
    return true;
  };
  while (std::erase_if(silent, hear), !silent.empty() && Clock::now() < end)
    std::this_thread::sleep_for(Milliseconds(10));
  store.add("heard", 1);  // the store stays until all have
  while (place.rank == 0 && store.add("heard", 0) < place.size && Clock::now() < end)
    std::this_thread::sleep_for(Milliseconds(10));
  if (!silent.empty()) said += fmt::format("; nothing heard of rank {}", fmt::join(silent, ", "));
  return said;
}

class Gloo : public World {
 public:
  Gloo(const Place& place, const WorldOptions& options)
      : place_(place), timeout_(static_cast<int64_t>(options.timeout_s * 1e3)) {
    signal(SIGPIPE, SIG_IGN);  // Gloo writes to ranks that may be gone
    try {
      c10d::TCPStoreOptions store;
      store.port = place.port;
      store.isServer = place.rank == 0 && !place.agent_keeps_store;
      store.numWorkers = static_cast<size_t>(place.size);
      store.waitWorkers = false;  // meet() waits, and names who is missing
      store.timeout = timeout_;
      if (store.isServer) {
        raise_descriptor_limit();
        store.masterListenFd = place.listening_fd ? place.listening_fd : listen_at(place);
      }
      server_ = c10::make_intrusive<c10d::TCPStore>(place.address, store);
      store_ = c10::make_intrusive<c10d::PrefixStore>("lehr/" + place.attempt, server_);
    } catch (const std::exception& e) {
      throw Error(Code::kRanks,
                  fmt::format("rank {} cannot reach the store at {}:{}: {}", place.rank,
                              place.address, place.port, first_line(e.what())),
                  "", "see that rank 0 runs and that its address and port can be reached");
    }
    meet("start");
    guarded(call("joining the group"), [&] {
      auto gloo = c10d::ProcessGroupGloo::Options::create(timeout_);
      gloo->devices.push_back(device());
      group_ = in_time(timeout_ + kPatience, [store = store_, place, gloo] {
        return c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.size, gloo);
      });
    });
  }

  ~Gloo() override {
    group_.reset();
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

  int rank() const override { return place_.rank; }
  int size() const override { return place_.size; }

  void barrier(const std::string& what) override { meet(what); }

  std::unique_ptr<Pending> begin_sum(at::Tensor tensor) override {
    struct Sum : Pending {
      Sum(Gloo& gloo, Call call) : gloo(gloo), call(call) {}
      void wait() override {
        gloo.guarded(call, [&] { work->wait(); });
      }
      Gloo& gloo;
      const Call call;
      c10::intrusive_ptr<c10d::Work> work;
    };
    auto pending = std::make_unique<Sum>(*this, call("a sum"));
    guarded(pending->call, [&] {
      std::vector<at::Tensor> in_place{tensor};
      pending->work = group_->allreduce(in_place);
    });
    return pending;
  }

  std::unique_ptr<Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override {
    sum(all);
    mine.copy_(all.chunk(size())[rank()]);
    return done();
  }
  std::unique_ptr<Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override {
    all.copy_(at::cat(gather(mine)));
    return done();
  }
  std::unique_ptr<World> split(int) override { throw Error(Code::kInternal, "no split yet"); }

  void sum_in_tree(at::Tensor tensor) override {
    guarded(call("a sum in a tree"), [&] {
      at::Tensor other = at::empty_like(tensor);
      for (int step = 1; step < place_.size; step *= 2) {
        swap(tensor, other, place_.rank ^ step, step);
        tensor.add_(other);  // a + b and b + a have the same bits
      }
    });
  }

  void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) override {
    const Call exchange = call("an exchange");
    if (partner == place_.rank) return;
    guarded(exchange, [&] { swap(mine, theirs, partner, 0); });
  }

  void broadcast(at::Tensor tensor, int root) override {
    guarded(call("a broadcast"), [&] {
      c10d::BroadcastOptions options;
      options.rootRank = root;
      std::vector<at::Tensor> in_place{tensor};
      group_->broadcast(in_place, options)->wait();
    });
  }

  std::vector<at::Tensor> gather(const at::Tensor& tensor) override {
    const at::Tensor flat = tensor.contiguous().view({-1});
    const std::vector<at::Tensor> lengths = gather_equal(at::full({1}, flat.numel(), at::kLong));
    int64_t longest = 0;
    for (const auto& length : lengths) longest = std::max(longest, length.item<int64_t>());
    at::Tensor padded = at::zeros({longest}, flat.options());
    padded.slice(0, 0, flat.numel()).copy_(flat);
    std::vector<at::Tensor> all;
    if (longest > 0) all = gather_equal(padded);
    all.resize(static_cast<size_t>(place_.size), padded);
    for (size_t r = 0; r < all.size(); ++r) all[r] = all[r].slice(0, 0, lengths[r].item<int64_t>());
    return all;
  }

 private:
  std::vector<at::Tensor> gather_equal(const at::Tensor& tensor) {
    std::vector<std::vector<at::Tensor>> all(1);
    for (int r = 0; r < place_.size; ++r) all[0].push_back(at::empty_like(tensor));
    guarded(call("a gathering"), [&] {
      std::vector<at::Tensor> mine{tensor};
      group_->allgather(all, mine)->wait();
    });
    return all[0];
  }

  // On one node nothing needs to leave it.
  std::shared_ptr<gloo::transport::Device> device() const {
    const char* chosen = std::getenv("GLOO_SOCKET_IFNAME");
    const bool one_node = place_.local_size == place_.size;
    if (chosen && *chosen && !one_node)
      return c10d::ProcessGroupGloo::createDeviceForInterface(chosen);
    return c10d::ProcessGroupGloo::createDeviceForHostname(
        one_node ? "127.0.0.1" : own_address(place_.address, place_.port));
  }

  void swap(const at::Tensor& mine, const at::Tensor& theirs, int partner, int tag) {
    std::vector<at::Tensor> out{mine}, in{theirs};
    auto sent = group_->send(out, partner, tag);
    auto received = group_->recv(in, partner, tag);
    sent->wait();
    received->wait();
  }

  struct Call {
    const char* what;
    int64_t number;  // in the order of this rank's calls, which is that of all
    Clock::time_point begin;
    std::string text() const { return fmt::format("{}, call {}", what, number); }
  };
  Call call(const char* what) { return {what, ++calls_, Clock::now()}; }

  template <class Work>
  void guarded(const Call& call, Work work) {
    try {
      work();
    } catch (const std::exception& e) {
      const std::chrono::duration<double> waited = Clock::now() - call.begin;
      throw Error(
          Code::kRanks,
          fmt::format("rank {} of {}: {}, failed after {:.1f} s: {}{}", place_.rank, place_.size,
                      call.text(), waited.count(), first_line(e.what()), others_at(call.text())),
          "", "another rank has ended or hangs; its own message says why");
    }
  }

  // What the others say that they were in.
  std::string others_at(const std::string& mine) {
    failed_ = true;
    try {
      return in_time(kGoodbye, [store = store_, place = place_, mine] {
        return compare_notes(*store, place, mine);
      });
    } catch (const std::exception&) {  // the store has gone with its rank
      return "";
    }
  }

  void meet(const std::string& what) {
    const Meeting meeting{store_, place_, timeout_, fmt::format("meeting/{}/", meetings_++)};
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
    throw Absent(
        fmt::format("after {} s at {}, of {} ranks these have not come: {}",
                    timeout_.count() / 1000.0, what, place_.size, fmt::join(missing, ", ")),
        missing);
  }

  const Place place_;
  const Milliseconds timeout_;
  c10::intrusive_ptr<c10d::Store> server_, store_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
  int meetings_ = 0;
  int64_t calls_ = 0;
  bool failed_ = false;
};

}  // namespace

std::unique_ptr<World> open_world(const Place& place, const WorldOptions& options) {
  if (place.size == 1) return nullptr;
  return std::make_unique<Gloo>(place, options);
}

}  // namespace lehr::dist
