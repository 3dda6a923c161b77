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
  // Each rank keeps its rows of the sums only (ZeRO, arXiv:1910.02054), and of the others' nothing
  // for longer than they are under way.
  bool shared = false;
  dist::World* replicas = nullptr;  // the ranks that keep the same rows; none: this one alone
};

// Parameters in the order of the backward, a few to a bucket. A bucket is sent once its last
// gradient is there, and only after those before it, so that all ranks send in one order. While a
// step is watched, float32 gradients live in the buckets, unless rows are shared: nothing is held
// twice.
class Buckets {
 public:
  Buckets(dist::World& world, const NamedTensors& trained, const BucketOptions& options);
  ~Buckets();

  size_t size() const { return buckets_.size(); }
  // Before a backward; `send`: buckets that it fills are sent. Not called: send_rest() sends all.
  void watch(bool send);
  // After it, what it did not: gradients of this rank (undefined: none), by index of `trained`.
  void send_rest(const Tensors& gradients);
  // Until all that was sent is summed. What a next backward sends is added to it; not where
  // gradients live in the buckets.
  void wait();
  // Whether this rank had a gradient of each parameter since the last take(), 1 or 0.
  std::vector<double> present() const;
  // The sums since then, or this rank's rows of them (undefined: it has none), by index of
  // `trained`; zeros where no rank had a gradient.
  Tensors take();

  // After an update of this rank's rows of `weights`, by index of `trained`: the others' too.
  void share_rows(const Tensors& weights);

 private:
  class Hook;
  struct Bucket {
    std::vector<size_t> members;  // of trained_
    FlatGradients layout;
    at::Tensor flat, sent;  // as they are and as they travel
    at::Tensor got, sum;    // where rows are shared: of this rank's part
    size_t present = 0;
    std::unique_ptr<dist::Pending> pending;
  };
  struct Place {
    Bucket* bucket;
    size_t index;
    bool here = false;     // in the bucket
    bool present = false;  // since the last take()
  };
  void arrived(size_t i);
  void put(size_t i, const at::Tensor& gradient);
  at::Tensor view(const Place& place) const;
  void send_full();
  void send(Bucket& bucket);
  void finish(Bucket& bucket);

  dist::World& world_;
  const NamedTensors trained_;
  const BucketOptions options_;
  const int64_t parts_, part_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::vector<Place> places_;
  size_t next_ = 0;  // the bucket to be sent
  bool watching_ = false, sending_ = false;
};

}  // namespace lehr::step
