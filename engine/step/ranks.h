// What the ranks of a step make one: the divisor, gradients, losses and batch statistics. Two ways:
// - plain: each rank adds up its micro-batches, the ranks add up their sums while the last backward
//   still runs; the bits depend on the number of ranks. Batch statistics are rank 0's, as in
//   PyTorch's DistributedDataParallel. Optimizer state may be shared (ZeRO, arXiv:1910.02054): each
//   rank of a group then gets the sums of its rows alone, moves those, and shows them the others.
// - in fixed order: every micro-batch is a logical shard, a leaf of one binary tree over all
//   shards, of which a rank holds a whole branch; so the bits are those of any number of ranks.
//   Batch statistics of every shard begin from those before the step, and their mean is kept.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/base/named_tensor.h"
#include "engine/dist/world.h"
#include "engine/step/buckets.h"
#include "engine/step/flat.h"
#include "engine/step/statistics.h"

namespace lehr::step {

// The sum over a binary tree of leaves that come one after the other.
class TreeSum {
 public:
  void add(at::Tensor leaf);  // taken over, and overwritten
  at::Tensor take();          // of a power of two of leaves
 private:
  std::vector<at::Tensor> branches_;  // [level]; undefined: none is open
};

struct RanksOptions {
  int64_t shards = 0;        // > 0: in fixed order, so many over all ranks; a power of two that the
                             // ranks, a power of two, divide
  int64_t zero_stage = 0;    // 1: optimizer state is shared; 2: gradients too, after each backward
  int64_t shard_degree = 0;  // ranks that share; 0: all
  bool count_backwards = false;      // also where they do not send
  bool kernels = true;               // of the norm (see global_norm)
  DeviceRuntime* runtime = nullptr;  // of a device
  BucketOptions buckets;
};

// Throws Error{kRecipe} where so many ranks cannot share a step in that way.
void check_ranks(const RanksOptions& options, int64_t ranks);
// How many ranks share a copy of the optimizer's state.
int64_t shard_degree(int64_t zero_stage, int64_t asked, int64_t ranks);

struct Counts {
  double weight = 0, samples = 0;
  int64_t backwards = 0, fewest = 0;  // the most and the least of any rank, where they are counted
  bool operator==(const Counts&) const = default;
};

class Ranks {
 public:
  using Numbers = std::vector<double>;

  // `trained`: the parameters whose gradients are summed. Throws Error{kRecipe} for options that do
  // not fit the number of ranks.
  Ranks(dist::World& world, const NamedTensors& trained, const NamedTensors& buffers,
        const RanksOptions& options);

  bool fixed_order() const { return options_.shards > 0; }
  bool shares() const { return options_.buckets.shared; }
  bool sends_each_backward() const { return shares() && options_.zero_stage == 2; }
  dist::World& world() const { return world_; }
  int64_t sharers() const;  // ranks that hold one copy of the optimizer's state
  // This rank's rows of a parameter; all, where nothing is shared.
  Rows own_rows(const at::Tensor& parameter) const;

  // Before a step's first backward, in the background, where the step before has not brought them:
  // `mine` has one for each micro-batch of this rank; call what it gives to have their sum over all
  // ranks.
  std::function<Counts()> begin_counts(const std::vector<Counts>& mine);

  // Plain, around a backward (see Buckets); end_backward only where every one sends, as often on
  // each rank.
  void watch(bool last) { buckets_->watch(last || sends_each_backward()); }
  void end_backward(Tensors* gradients);
  // Fixed order, before the first shard and after each: the gradients it alone has made, or none
  // where it is empty, and its loss (0-d).
  void begin_shards();
  void end_shard(const Tensors& gradients, const at::Tensor& loss);

  struct Sums {
    double loss = 0, norm = 0;      // the gradients' global norm
    bool finite_statistics = true;  // batch statistics that all ranks are about to keep
    Numbers aside;
    std::optional<Counts> next;  // of the next step, where every rank gave its own
  };
  // At the end: the gradients of this rank (undefined: none; in fixed order: unused) become those
  // of all, or this rank's rows of them; undefined where no rank has one. `losses`: 0-d, one a
  // micro-batch. `aside`: whatever else is to be added up. `next`: this rank's counts of the next
  // step; nullptr: not known. In fixed order, batch statistics move here; plain, `has_statistics`:
  // this rank's are to be kept (where several have them, all alike).
  // The one point at which the host waits for a device, and the ranks for something small.
  Sums finish(Tensors* gradients, const Tensors& losses, Numbers aside,
              const std::vector<Counts>* next, bool has_statistics);
  // After the update of this rank's rows: all weights, and the statistics to be kept, on all.
  void share_update(const Tensors& weights);

 private:
  void split_world();
  at::Tensor there(const Numbers& numbers) const;
  bool counts_backwards() const { return sends_each_backward() || options_.count_backwards; }
  Numbers summands(const std::vector<Counts>& mine) const;
  Counts counts_of(const double* sums) const;
  void append(Numbers* aside, const std::vector<Counts>* next) const;
  void take_apart(Numbers all, Sums* sums) const;
  Sums finish_tree(Tensors* gradients, const Tensors& losses, const Numbers& aside);

  dist::World& world_;
  const at::Device device_;  // of weights, gradients and statistics
  Statistics statistics_;
  RanksOptions options_;
  std::unique_ptr<dist::World> sharers_, replicas_;  // the ranks of a copy; those with equal rows
  std::unique_ptr<Buckets> buckets_;                 // plain
  at::Tensor kept_statistics_;
  FlatGradients layout_;  // fixed order
  TreeSum gradient_tree_, moves_tree_, numbers_tree_;
  at::Tensor statistics_before_;
};

}  // namespace lehr::step
