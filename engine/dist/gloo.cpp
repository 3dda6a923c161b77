// Ranks that are processes, over c10d's Gloo group and TCPStore. The only file that sees either;
// their signatures drift between releases of LibTorch.
#include <ATen/ATen.h>
#include <fmt/format.h>
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
      if (store.isServer) store.masterListenFd = place.listening_fd;
      server_ = c10::make_intrusive<c10d::TCPStore>(place.address, store);
      store_ = c10::make_intrusive<c10d::PrefixStore>("lehr/" + place.attempt, server_);
    } catch (const std::exception& e) {
      throw Error(Code::kRanks,
                  fmt::format("rank {} cannot reach the store at {}:{}: {}", place.rank,
                              place.address, place.port, first_line(e.what())),
                  "", "see that rank 0 runs and that its address and port can be reached");
    }
    meet("start");
    guarded("joining the group", [&] {
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

  void sum(at::Tensor tensor) override {
    guarded("a sum", [&] {
      std::vector<at::Tensor> in_place{tensor};
      group_->allreduce(in_place)->wait();
    });
  }

  void sum_in_tree(at::Tensor tensor) override {
    guarded("a sum in a tree", [&] {
      at::Tensor other = at::empty_like(tensor);
      for (int step = 1; step < place_.size; step *= 2) {
        swap(tensor, other, place_.rank ^ step, step);
        tensor.add_(other);  // a + b and b + a have the same bits
      }
    });
  }

  void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) override {
    if (partner == place_.rank) return;
    guarded("an exchange", [&] { swap(mine, theirs, partner, 0); });
  }

  void broadcast(at::Tensor tensor, int root) override {
    guarded("a broadcast", [&] {
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
    guarded("a gathering", [&] {
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

  template <class Work>
  void guarded(const char* what, Work work) {
    try {
      work();
    } catch (const std::exception& e) {
      failed_ = true;
      throw Error(Code::kRanks,
                  fmt::format("rank {} of {}: {} failed: {}", place_.rank, place_.size, what,
                              first_line(e.what())),
                  "", "another rank has ended or hangs; its own message says why");
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
  bool failed_ = false;
};

}  // namespace

std::unique_ptr<World> open_world(const Place& place, const WorldOptions& options) {
  if (place.size == 1) return nullptr;
  return std::make_unique<Gloo>(place, options);
}

}  // namespace lehr::dist
