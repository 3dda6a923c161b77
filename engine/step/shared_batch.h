// Batch statistics over the ranks (`parallelism.batch_norm: synchronised`).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/dist/world.h"
#include "models/batch_norm.h"

namespace lehr::step {

// The sums of the model's batch norms, on a world of their own: a backward makes them between the
// buckets that it sends, and a rank without a batch sends its buckets at another time.
class SharedBatch {
 public:
  explicit SharedBatch(dist::World& world);
  const models::SumOverRanks* sum() const { return &sum_; }
  // Around a micro-batch of this rank's own.
  void begin() { sizes_.clear(), forwards_ = 0; }
  void forward_done() { forwards_ = sizes_.size(); }
  // The same for a forward and backward that the other ranks do not make: nothing is summed.
  void learn(const std::function<void()>& forward_and_backward);
  bool knows_sums() const { return !sizes_.empty(); }
  // In place of a micro-batch, where this rank has none and another has: takes part with zeros in
  // what the last one summed.
  void stand_in(bool with_backward);

 private:
  std::unique_ptr<dist::World> world_;
  models::SumOverRanks sum_;
  std::vector<int64_t> sizes_;   // of the sums of a micro-batch
  at::Device device_{at::kCPU};  // where they are
  size_t forwards_ = 0;          // how many of them come before its backward
  bool learns_ = false;
};

}  // namespace lehr::step
