// Ranks that are processes, over c10d's Gloo group and TCPStore. The only file that sees either;
// their signatures drift between releases of LibTorch.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "engine/base/error.h"
#include "engine/dist/world.h"

namespace lehr::dist {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

std::string first_line(const char* text) {
  const std::string all = text;
  return all.substr(0, all.find('\n'));
}

// A socket that listens where `place` says the store is, and nowhere else; c10d's own listens on
// every interface. None where that address is not this node's own (a service in front of it).
std::optional<int> listen_at(const std::string& address, uint16_t port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    return std::nullopt;
  std::optional<int> listening;
  for (const addrinfo* at = found; at && !listening; at = at->ai_next) {
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

class Gloo : public World {
 public:
  Gloo(const Place& place, const WorldOptions& options)
      : place_(place), timeout_(static_cast<int64_t>(options.timeout_s * 1e3)) {
    try {
      c10d::TCPStoreOptions store;
      store.port = place.port;
      store.isServer = place.rank == 0 && !place.agent_keeps_store;
      store.numWorkers = static_cast<size_t>(place.size);
      store.waitWorkers = false;  // meet() waits, and names who is missing
      store.timeout = timeout_;
      if (store.isServer) {
        raise_descriptor_limit();
        store.masterListenFd =
            place.listening_fd ? place.listening_fd : listen_at(place.address, place.port);
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
      // on one node nothing needs to leave it
      gloo->devices.push_back(place.local_size == place.size
                                  ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                  : c10d::ProcessGroupGloo::createDefaultDevice());
      group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store_, place.rank, place.size, gloo);
    });
  }

  ~Gloo() override {
    group_.reset();
    // rank 0 serves the store, and leaves last; but not where somebody is missing for good
    try {
      store_->add("left", 1);
      const auto end = Clock::now() + std::min<Milliseconds>(timeout_, Milliseconds(2000));
      while (place_.rank == 0 && !failed_ && store_->add("left", 0) < place_.size &&
             Clock::now() < end)
        std::this_thread::sleep_for(Milliseconds(5));
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

  void sum_in_tree(at::Tensor tensor) override {
    guarded(call("a sum in a tree"), [&] {
      at::Tensor other = at::empty_like(tensor);
      for (int step = 1; step < place_.size; step *= 2) {
        const int partner = place_.rank ^ step;
        std::vector<at::Tensor> mine{tensor}, theirs{other};
        auto sent = group_->send(mine, partner, step);
        auto received = group_->recv(theirs, partner, step);
        sent->wait();
        received->wait();
        tensor.add_(other);  // a + b and b + a have the same bits
      }
    });
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
                      call.text(), waited.count(), first_line(e.what()), what_others_did(call)),
          "", "another rank has ended or hangs; its own message says why");
    }
  }

  // Each tells the others where it failed, for as long as the store lives.
  std::string what_others_did(const Call& call) {
    failed_ = true;
    std::vector<int> silent;
    std::string said;
    try {
      store_->set("failed/" + std::to_string(place_.rank), call.text());
      for (int r = 0; r < place_.size; ++r) silent.push_back(r);
      const auto end = Clock::now() + Milliseconds(500);
      const auto hear = [&](int r) {
        const std::string key = "failed/" + std::to_string(r);
        if (!store_->check({key})) return false;
        if (const std::string other = store_->get_to_str(key); other != call.text())
          said += fmt::format("; rank {} was in {}", r, other);
        return true;
      };
      while (std::erase_if(silent, hear), !silent.empty() && Clock::now() < end)
        std::this_thread::sleep_for(Milliseconds(10));
      store_->add("heard", 1);  // the store stays until all have
      while (place_.rank == 0 && store_->add("heard", 0) < place_.size && Clock::now() < end)
        std::this_thread::sleep_for(Milliseconds(10));
    } catch (const std::exception&) {  // the store has gone with its rank
    }
    return silent.empty()
               ? said
               : fmt::format("{}; nothing heard of rank {}", said, fmt::join(silent, ", "));
  }

  // Through the store, so that whoever does not come is known.
  void meet(const std::string& what) {
    const std::string place = fmt::format("meeting/{}/", meetings_++);
    std::vector<int> missing;
    for (int r = 0; r < place_.size; ++r) missing.push_back(r);
    const auto end = Clock::now() + timeout_;
    try {
      store_->set(place + std::to_string(place_.rank), "here");
      for (auto pause = Milliseconds(1); Clock::now() < end;
           pause = std::min(2 * pause, Milliseconds(50))) {
        std::erase_if(missing, [&](int r) { return store_->check({place + std::to_string(r)}); });
        if (missing.empty()) return;
        std::this_thread::sleep_for(pause);
      }
    } catch (const std::exception& e) {  // whoever serves the store has given up first
      if (Clock::now() + Milliseconds(100) < end)
        throw Error(Code::kRanks, fmt::format("rank {} cannot reach the store at {}: {}",
                                              place_.rank, what, first_line(e.what())));
    }
    throw Error(Code::kRanks,
                fmt::format("after {} s at {}, of {} ranks these have not come: {}",
                            timeout_.count() / 1000.0, what, place_.size, fmt::join(missing, ", ")),
                "", "see their output, and that every node reaches this one");
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
