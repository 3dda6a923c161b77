// What the ranks of a step make one: the divisor, gradients, losses and batch statistics. Two ways:
// - plain: each rank adds up its micro-batches, the ranks add up their sums while the last backward
//   still runs; the bits depend on the number of ranks. Batch statistics are rank 0's, as in
//   PyTorch's DistributedDataParallel.
// - in fixed order: every micro-batch is a logical shard, a leaf of one binary tree over all
// shards,
//   of which a rank holds a whole branch; so the bits are those of any number of ranks. Batch
//   statistics of every shard begin from those before the step, and their mean is kept.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "engine/base/named_tensor.h"
#include "engine/dist/world.h"
#include "engine/step/buckets.h"
#include "engine/step/flat.h"

namespace lehr::step {

// The sum over a binary tree of leaves that come one after the other.
class TreeSum {
 public:
  void add(at::Tensor leaf);  // taken over, and overwritten
  at::Tensor take();          // of a power of two of leaves
 private:
  std::vector<at::Tensor> branches_;  // [level]; undefined: none is open
};

class Ranks {
 public:
  // `trained`: the parameters whose gradients are summed. `shards` > 0: in fixed order, so many
  // over all ranks; a power of two that the ranks, a power of two, divide.
  Ranks(dist::World& world, NamedTensors trained, NamedTensors buffers, int64_t shards,
        const BucketOptions& options = {});

  bool fixed_order() const { return shards_ > 0; }
  dist::World& world() const { return world_; }
  // Sums over all micro-batches and ranks, column by column; `rows`: one for each micro-batch of
  // this rank. The same bits on every rank.
  std::vector<double> total(const std::vector<std::vector<double>>& rows, size_t columns);

  // Plain, before a backward (Buckets::watch), and after the last: the gradients of this rank's
  // micro-batches (undefined: none) become those of all ranks, undefined only where no rank has
  // one.
  void watch(bool last) { buckets_->watch(last); }
  void sum_gradients(Tensors* gradients) { buckets_->sum(gradients); }
  // Plain, after the update: batch statistics of rank 0.
  void share_buffers();

  // Fixed order: before the first shard, around each (with the gradients it alone has made, or none
  // where it is empty), and at the end, which gives the gradients of all and sets the statistics.
  void begin_shards();
  void end_shard(const Tensors& gradients);
  Tensors end_shards();

 private:
  dist::World& world_;
  NamedTensors buffers_;
  int64_t shards_;
  std::unique_ptr<Buckets> buckets_;  // plain
  FlatGradients layout_;              // fixed order
  TreeSum gradient_tree_, buffer_tree_;
  at::Tensor buffers_before_;
};

}  // namespace lehr::step
