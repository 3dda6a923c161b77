// Ranks that are processes, over c10d's groups: Gloo for what is on the CPU, NCCL for what is on a
// GPU. With session.cpp, the only file that sees them; their signatures drift between releases of
// LibTorch.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <set>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "engine/base/error.h"
#include "engine/dist/address.h"
#include "engine/dist/by_host.h"
#include "engine/dist/node_memory.h"
#include "engine/dist/peers_store.h"
#include "engine/dist/session.h"
#include "engine/dist/world.h"

namespace lehr::dist {
namespace {

// Of a world or a part of one: which of the job's ranks, in their order, and under which name.
struct Members {
  std::vector<int> ranks;
  int rank = 0;  // this one, among them
  std::string name;
  bool in_nodes = false;  // so many consecutive ranks on each node; of all the job's ranks alike
};

// Sums up to this size go by pairs of ranks: log2(n) messages one after the other where Gloo's ring
// has 2(n - 1), and on two ranks one, without its threads.
constexpr int64_t kSmallBytes = 64 << 10;
// Tags of messages between two ranks: Gloo keeps those of one tag in their order.
constexpr int kTagOfExchange = 0, kTagOfSum = 1, kTagOfTree = 2;

// On one node nothing needs to leave it. Connections are made when they are first used: a mesh of n
// ranks would have n^2.
std::shared_ptr<gloo::transport::Device> line_of(const Place& place) {
  const char* chosen = std::getenv("GLOO_SOCKET_IFNAME");
  const bool one_node = place.local_size == place.size;
  if (chosen && *chosen && !one_node)
    return c10d::ProcessGroupGloo::createDeviceForInterface(chosen, /*lazyInit=*/true);
  return c10d::ProcessGroupGloo::createDeviceForHostname(
      one_node ? "127.0.0.1" : own_address(place.address, place.port), /*lazyInit=*/true);
}

class Processes : public World {
 public:
  Processes(std::shared_ptr<Session> session, Members members, DeviceRuntime* device)
      : session_(std::move(session)), members_(std::move(members)), device_(device) {
    const StorePointer store =
        c10::make_intrusive<c10d::PrefixStore>(members_.name, session_->store());
    const auto peers = c10::make_intrusive<PeersStore>(store);
    const auto made = std::make_shared<c10::intrusive_ptr<c10d::Backend>>();
    const auto options = c10d::ProcessGroupGloo::Options::create(session_->timeout());
    const Call joining = session_->begin("joining the group");
    session_->guarded_in_time(
        joining, [made, peers, options, place = session_->place(), rank = rank(), size = size()] {
          options->devices.push_back(line_of(place));
          *made = c10::make_intrusive<c10d::ProcessGroupGloo>(peers, rank, size, options);
        });
    gloo_ = *made;
    everyone_.resize(members_.ranks.size());
    std::iota(everyone_.begin(), everyone_.end(), 0);
    session_->guarded(joining, [&] {
      meet_neighbours(*peers);
      share_memory(*store);
    });
  }

  int rank() const override { return members_.rank; }
  int size() const override { return static_cast<int>(members_.ranks.size()); }
  void enter(const char* phase, int64_t step) override { session_->enter(phase, step); }

  void barrier(const std::string& what) override { session_->meet(what); }

  int64_t store_calls() const override { return session_->store_calls(); }

  std::unique_ptr<Pending> begin_sum(at::Tensor tensor) override {
    const bool is_small = tensor.is_cpu() && static_cast<int64_t>(tensor.nbytes()) <= kSmallBytes;
    if (tensor.is_contiguous() && (is_small || is_in_memory(tensor)))
      return begin_sum_at_wait(std::move(tensor));
    return begin("a sum", [&] {
      std::vector<at::Tensor> in_place{tensor};
      return group(tensor).allreduce(in_place);
    });
  }

  std::unique_ptr<Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override {
    if (!all.is_cpu())
      return begin("a reduce-scatter", [&] { return group(all)._reduce_scatter_base(mine, all); });
    // Gloo's own is a sum of copies on every rank; here each adds up its part, in float32 for
    // bfloat16 (4 ranks, 64 MiB, 2 cores, c10d from Python: 92 ms in place of 269)
    struct Part : Pending {
      void wait() override {
        sent->wait();
        at::sum_out(mine, parts.view({-1, mine.numel()}), 0);
      }
      std::unique_ptr<Pending> sent;
      at::Tensor parts, mine;
    };
    auto part = std::make_unique<Part>();
    part->parts = at::empty_like(all), part->mine = std::move(mine);
    part->sent = begin("a reduce-scatter", [&] {
      std::vector<int64_t> equal;
      return gloo_->alltoall_base(part->parts, all, equal, equal);
    });
    return part;
  }

  std::unique_ptr<Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override {
    return begin("an all-gather", [&] { return group(all)._allgather_base(all, mine); });
  }

  void sum_in_tree(at::Tensor tensor) override {
    session_->guarded(session_->begin("a sum in a tree"), [&] {
      if (is_in_memory(tensor) && tensor.is_contiguous())
        return node_->memory->sum(tensor, /*in_tree=*/true);
      at::Tensor other = at::empty_like(tensor);
      for (int step = 1; step < size(); step *= 2) {
        swap(tensor, other, rank() ^ step, kTagOfTree);
        tensor.add_(other);  // a + b and b + a have the same bits
      }
    });
  }

  void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) override {
    const Call exchange = session_->begin("an exchange");
    if (partner == rank()) return;
    session_->guarded(exchange, [&] { swap(mine, theirs, partner, kTagOfExchange); });
  }

  void broadcast(at::Tensor tensor, int root) override {
    session_->guarded(session_->begin("a broadcast"), [&] {
      c10d::BroadcastOptions options;
      options.rootRank = root;
      std::vector<at::Tensor> in_place{tensor};
      group(tensor).broadcast(in_place, options)->wait();
    });
  }

  std::vector<at::Tensor> gather(const at::Tensor& tensor) override {
    const at::Tensor flat = tensor.contiguous().view({-1});
    const at::Tensor lengths = at::zeros({size()}, at::kLong);
    lengths[rank()] = flat.numel();
    sum(lengths);
    const auto* length = lengths.const_data_ptr<int64_t>();
    const int64_t longest = *std::max_element(length, length + size());
    std::vector<at::Tensor> each;
    if (flat.is_cpu() && longest > 0 && longest * flat.element_size() * size() <= kSmallBytes) {
      // a sum of bytes of which only one rank has some: log2(n) messages, where a ring has n - 1
      const at::Tensor all = at::zeros({size(), longest * flat.element_size()}, at::kByte);
      all[rank()].slice(0, 0, static_cast<int64_t>(flat.nbytes())).copy_(flat.view(at::kByte));
      sum(all);
      for (int r = 0; r < size(); ++r)
        each.push_back(all[r].view(flat.scalar_type()).slice(0, 0, length[r]));
      return each;
    }
    at::Tensor padded = flat;
    if (flat.numel() < longest) {
      padded = at::zeros({longest}, flat.options());
      padded.slice(0, 0, flat.numel()).copy_(flat);
    }
    const at::Tensor all = at::empty({size(), longest}, flat.options());
    if (longest > 0)
      begin("a gathering", [&] {
        at::Tensor into = all.view({-1});
        return group(padded)._allgather_base(into, padded);
      })->wait();
    for (int r = 0; r < size(); ++r) each.push_back(all[r].slice(0, 0, length[r]));
    return each;
  }

  std::unique_ptr<World> split(int color) override {
    const at::Tensor colors = at::zeros({size()}, at::kLong);
    colors[rank()] = color;
    sum(colors);
    const auto* color_of = colors.const_data_ptr<int64_t>();
    Members members;
    members.name = fmt::format("{}/{}-{}", members_.name, splits_++, color);
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) members.rank = static_cast<int>(members.ranks.size());
      if (color_of[r] == color) members.ranks.push_back(members_.ranks[static_cast<size_t>(r)]);
    }
    return std::make_unique<Processes>(session_, std::move(members), device_);
  }

 private:
  template <class Start>
  std::unique_ptr<Pending> begin(const char* what, Start start) {
    struct Working : Pending {
      Working(std::shared_ptr<Session> session, Call call)
          : session(std::move(session)), call(call) {}
      void wait() override {
        session->guarded(call, [&] { work->wait(); });
      }
      const std::shared_ptr<Session> session;
      const Call call;
      c10::intrusive_ptr<c10d::Work> work;
    };
    auto pending = std::make_unique<Working>(session_, session_->begin(what));
    session_->guarded(pending->call, [&] { pending->work = start(); });
    return pending;
  }

  // Whether all its ranks are on one node that has memory for them.
  bool is_in_memory(const at::Tensor& tensor) const {
    return node_ && node_->firsts.size() == 1 && tensor.is_cpu();
  }

  // Ranks wait for what they began in the same order.
  std::unique_ptr<Pending> begin_sum_at_wait(at::Tensor tensor) {
    struct Sum : Pending {
      Sum(Processes& world, Call call, at::Tensor tensor)
          : world(world), call(call), tensor(std::move(tensor)) {}
      void wait() override {
        world.session_->guarded(call, [&] { world.sum_small(tensor); });
      }
      Processes& world;
      const Call call;
      at::Tensor tensor;
    };
    return std::make_unique<Sum>(*this, session_->begin("a sum"), std::move(tensor));
  }

  // In a node's memory, then between the first ranks of the nodes.
  void sum_small(const at::Tensor& tensor) {
    if (!node_) return sum_by_pairs(tensor, everyone_);
    const auto& [memory, firsts, is_first] = *node_;
    if (memory) memory->sum(tensor, /*in_tree=*/false);
    if (firsts.size() == 1) return;
    if (is_first) sum_by_pairs(tensor, firsts);
    if (memory) memory->share(tensor);
  }

  void share_memory(c10d::Store& store) {
    const auto node_of = [&](int member) {
      return members_.ranks[static_cast<size_t>(member)] / session_->place().local_size;
    };
    Node node;
    std::vector<int> here;
    for (const int member : everyone_) {
      if (member == 0 || node_of(member) != node_of(member - 1)) node.firsts.push_back(member);
      if (node_of(member) == node_of(rank())) here.push_back(member);
    }
    if (!members_.in_nodes || node.firsts.size() == everyone_.size()) return;
    node.is_first = here[0] == rank();
    const auto here_size = static_cast<int>(here.size());
    const std::string key = fmt::format("memory/{}", here[0]);
    if (here_size > 1 && node.is_first) {
      node.memory = NodeMemory::make(here_size, session_->timeout());
      store.set(key, node.memory ? node.memory->path() : "none");
    } else if (here_size > 1) {
      node.memory =
          NodeMemory::open(store.get_to_str(key), rank() - here[0], here_size, session_->timeout());
    }
    // where one of them cannot, none does
    at::Tensor count = at::full({1}, here_size == 1 || node.memory ? 1 : 0, at::kLong);
    sum_by_pairs(count, everyone_);
    if (node.memory && node.is_first) node.memory->remove_name();
    if (count.item<int64_t>() == size()) node_ = std::move(node);
  }

  // Recursive doubling among ranks of which this is one. Where they are no power of two, those
  // above it give theirs to one below and are told the result. a + b and b + a have the same bits,
  // so all end with the same.
  void sum_by_pairs(const at::Tensor& tensor, const std::vector<int>& among) {
    const auto size = static_cast<int>(among.size());
    const auto self =
        static_cast<int>(std::lower_bound(among.begin(), among.end(), rank()) - among.begin());
    const auto of = [&](int other) { return among[static_cast<size_t>(other)]; };
    int power = 1;
    while (2 * power <= size) power *= 2;
    const int more = size - power;
    const at::Tensor sum = tensor;
    at::Tensor other = at::empty_like(tensor);
    if (self >= power) {
      send(sum, of(self - power));
      return receive(sum, of(self - power));
    }
    if (self < more) receive(other, of(self + power)), sum.add_(other);
    for (int step = 1; step < power; step *= 2) {
      swap(sum, other, of(self ^ step), kTagOfSum);
      sum.add_(other);
    }
    if (self < more) send(sum, of(self + power));
  }
  // Connects to the ranks that sums, gatherings and broadcasts speak to, so that one that is gone
  // is noticed by those at once, whether or not it has spoken: its connections close.
  void meet_neighbours(PeersStore& peers) {
    if (size() == 1) return;
    const int next = (rank() + 1) % size(), before = (rank() + size() - 1) % size();
    std::set<int> near{next, before};
    for (int step = 1; step < size(); step *= 2)
      for (const int other : {rank() ^ step, rank() + step, rank() - step})
        if (other >= 0 && other < size()) near.insert(other);
    for (int other = 0; size() <= NodeMemory::kMostRanks && other < size(); ++other)
      near.insert(other);
    near.erase(rank());
    const std::string own = std::to_string(rank());
    if (std::string prefix = peers.last_set(); prefix.ends_with(own)) {
      prefix.resize(prefix.size() - own.size());
      std::vector<std::string> keys;
      for (const int other : near) keys.push_back(prefix + std::to_string(other));
      peers.fetch(keys, session_->timeout());
    }
    // the job's ranks are so many on each node, if their numbers have no variance
    const Place& place = session_->place();
    const double local = place.local_size;
    const bool own_is_regular = place.local_rank == place.rank % place.local_size &&
                                place.local_size <= NodeMemory::kMostRanks;
    const at::Tensor mine =
        at::tensor({own_is_regular ? 1.0 : 0.0, local, local * local}, at::kDouble);
    std::vector<at::Tensor> out{mine}, in{at::empty_like(mine)};
    auto sent = gloo_->send(out, next, kTagOfSum);
    gloo_->recv(in, before, kTagOfSum)->wait(session_->timeout());
    sent->wait(session_->timeout());
    sum_by_pairs(mine, everyone_);
    const double* sums = mine.const_data_ptr<double>();
    members_.in_nodes =
        sums[0] == size() && sums[1] == local * size() && sums[2] == local * local * size();
  }
  void send(const at::Tensor& tensor, int to) {
    std::vector<at::Tensor> out{tensor};
    gloo_->send(out, to, kTagOfSum)->wait(session_->timeout());
  }
  void receive(const at::Tensor& tensor, int from) {
    std::vector<at::Tensor> in{tensor};
    gloo_->recv(in, from, kTagOfSum)->wait(session_->timeout());
  }

  // NCCL's is made when a first tensor needs it: by then the ranks know that all have a GPU.
  c10d::Backend& group(const at::Tensor& tensor) {
    if (tensor.is_cpu()) return *gloo_;
    if (!nccl_) {
      const auto store = c10::make_intrusive<c10d::PrefixStore>(members_.name, session_->store());
      nccl_ = c10::intrusive_ptr<c10d::Backend>::reclaim(device_->make_nccl(
          *store, rank(), size(), static_cast<double>(session_->timeout().count()) / 1e3));
    }
    return *nccl_;
  }

  void swap(const at::Tensor& mine, const at::Tensor& theirs, int partner, int tag) {
    std::vector<at::Tensor> out{mine}, in{theirs};
    c10d::Backend& pair = group(mine);
    // NCCL's kernels run one after the other: as one group, or both sides would wait in their send
    const bool together = !mine.is_cpu();
    if (together) pair.startCoalescing();
    auto sent = pair.send(out, partner, tag);
    auto received = pair.recv(in, partner, tag);
    if (together) {
      pair.endCoalescing()->wait();
      return;
    }
    // without a limit, receiving waits for good
    sent->wait(session_->timeout());
    received->wait(session_->timeout());
  }

  const std::shared_ptr<Session> session_;
  // The ranks of this one's node in this world, and of each node the first.
  struct Node {
    std::unique_ptr<NodeMemory> memory;  // none: this one is alone
    std::vector<int> firsts;
    bool is_first = false;
  };

  Members members_;
  DeviceRuntime* const device_;
  c10::intrusive_ptr<c10d::Backend> gloo_, nccl_;
  std::vector<int> everyone_;
  std::optional<Node> node_;  // none: each rank speaks for itself
  int splits_ = 0;
};

}  // namespace

std::unique_ptr<World> open_world(const Place& place, const WorldOptions& options) {
  if (place.size == 1 && !options.even_alone) return nullptr;
  const auto milliseconds = [](double s) { return Milliseconds(static_cast<int64_t>(s * 1e3)); };
  auto session =
      std::make_shared<Session>(place, milliseconds(options.timeout_s),
                                milliseconds(options.heartbeat_s), options.ends_stuck_calls);
  session->meet("start");
  Members all;
  for (int r = 0; r < place.size; ++r) all.ranks.push_back(r);
  all.rank = place.rank, all.name = "all";
  auto world = std::make_unique<Processes>(std::move(session), std::move(all), options.device);
  if (options.device && !options.device->has_collectives()) return by_host(std::move(world));
  return world;
}

}  // namespace lehr::dist
