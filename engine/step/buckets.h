// Sums gradients over the ranks while the backward still runs.
#pragma once

#include <memory>
#include <vector>

#include "engine/dist/world.h"
#include "engine/step/flat.h"

namespace lehr::step {

struct BucketOptions {
  std::vector<size_t>
      order;                 // of the parameters in a forward, as indices; empty: as they are given
  int64_t bytes = 25 << 20;  // of a bucket; the first, which holds what a backward reaches first,
                             // at most 1 MiB, so that sending begins early
  bool bf16 = false;         // send bfloat16: half the bytes, and sums of 8 bits of mantissa
};

// Parameters in the order of the backward, a few to a bucket. A bucket is sent once its last
// gradient is there, and only after those before it, so that all ranks send in one order. While a
// step is watched, float32 gradients live in the buckets: nothing is held twice.
class Buckets {
 public:
  Buckets(dist::World& world, const NamedTensors& trained, const BucketOptions& options);
  ~Buckets();

  size_t size() const { return buckets_.size(); }
  // Before a step's first backward; `last`: the backward that follows is its last, so buckets that
  // it fills are sent. Not called: sum() sends everything.
  void watch(bool last);
  // The gradients of this rank (undefined: none), by index of `trained`, become those of all;
  // undefined only where no rank has one.
  void sum(Tensors* gradients);

 private:
  class Hook;
  struct Bucket {
    std::vector<size_t> members;  // of trained_
    FlatGradients layout;
    at::Tensor flat, sent;
    size_t present = 0;
    std::unique_ptr<dist::Pending> pending;
  };
  struct Place {
    Bucket* bucket;
    size_t index;
    at::Tensor view;  // of the bucket's memory
    bool present = false;
  };
  void arrived(size_t i);
  void put(size_t i, const at::Tensor& gradient);
  void send_full();
  void send(Bucket& bucket);

  dist::World& world_;
  const NamedTensors trained_;
  const bool bf16_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::vector<Place> places_;
  size_t next_ = 0;  // the bucket to be sent
  bool watching_ = false, last_ = false;
};

}  // namespace lehr::step
