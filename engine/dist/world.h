// Gives the others a world: rank, size, collectives. One rank is the plain case and costs nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/base/device.h"
#include "engine/base/error.h"
#include "engine/dist/launcher.h"

namespace lehr::dist {

// A call under way.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual void wait() = 0;  // throws as the call itself would
};

// Ranks that did not come to a meeting in time.
class Absent : public Error {
 public:
  Absent(const std::string& what, std::vector<int> ranks);
  const std::vector<int>& ranks() const { return ranks_; }

 private:
  std::vector<int> ranks_;
};

// Every call is made by all ranks, in the same order. A rank that is gone, stuck or in another call
// ends it with Error{kRanks} on the others.
class World {
 public:
  virtual ~World() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Waits for all; `what` goes into the message, which names the ranks that did not come in time.
  virtual void barrier(const std::string& what) = 0;
  // In place over ranks, dense float32, float64 or bfloat16, on the CPU (Gloo) or a GPU (NCCL,
  // where wait() makes the current stream wait and not the host; another device's cross to the
  // CPU); every rank ends with the same
  // bits, which depend on the number of ranks.
  void sum(at::Tensor tensor) { begin_sum(std::move(tensor))->wait(); }
  // The same in the background: the tensor is the call's until wait() returns. Several may be under
  // way, and other calls beside them.
  virtual std::unique_ptr<Pending> begin_sum(at::Tensor tensor) = 0;
  // The same by pairs of neighbours, then pairs of pairs, ...: one level of a binary tree a round.
  // size() must be a power of two.
  virtual void sum_in_tree(at::Tensor tensor) = 0;
  // The sum over ranks of `all` (size() equal parts, one after the other), of which each rank gets
  // its own part in `mine`. `all` is overwritten.
  virtual std::unique_ptr<Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) = 0;
  // The parts of all ranks, one after the other, in `all`, of which `mine` may be this rank's.
  virtual std::unique_ptr<Pending> begin_all_gather(at::Tensor mine, at::Tensor all) = 0;
  virtual void broadcast(at::Tensor tensor, int root = 0) = 0;  // in place
  // Between two ranks, each giving the other's number; of one size and dtype. A rank that has no
  // partner in this round gives its own number.
  virtual void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) = 0;
  // Of all ranks, in rank order; one dtype, sizes may differ.
  virtual std::vector<at::Tensor> gather(const at::Tensor& tensor) = 0;
  // Worlds of the ranks of one colour each, in their order. Lives no longer than this one, whose
  // ranks its messages name; calls of both may be under way at once.
  virtual std::unique_ptr<World> split(int color) = 0;
  // How often this rank has asked the job's store: the one place that serves all ranks.
  virtual int64_t store_calls() const { return 0; }
  // Where this rank is now, for what the others say of it when something fails.
  virtual void enter(const char* /*phase*/, int64_t /*step*/) {}

  bool is_lead() const { return rank() == 0; }
  bool any(bool flag);
  std::vector<std::string> gather_text(const std::string& text);
  std::string broadcast_text(const std::string& text, int root = 0);
  // Throws Error{kRanks} with the values when the ranks' texts differ: "rank 2 has another recipe
  // ..."
  void require_same(const std::string& what, const std::string& text);
};

// What a world gives back that does a call at once.
std::unique_ptr<Pending> done();

World& single();  // rank 0 of 1

struct WorldOptions {
  double timeout_s = 600;           // of a collective, and of waiting for a rank or the store
  double heartbeat_s = 5;           // after which who is waited for is said
  DeviceRuntime* device = nullptr;  // of GPUs, whose tensors go over NCCL
  bool even_alone = false;
  // Two seconds after another rank has failed, a call that still goes on ends the process (code 6).
  bool ends_stuck_calls = true;
};
// The world of the process' launcher; nullptr for one rank, unless `even_alone`. Throws
// Error{kRanks} naming ranks that did not come.
std::unique_ptr<World> open_world(const Place& place, const WorldOptions& options);

// `size` worlds that are threads of one process, for tests.
std::vector<std::unique_ptr<World>> thread_worlds(int size);

}  // namespace lehr::dist
