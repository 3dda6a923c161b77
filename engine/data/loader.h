// Batches in order, ahead of time: threads fill a bounded queue while the step computes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/base/batch.h"
#include "engine/base/device.h"
#include "engine/data/dataset.h"

namespace lehr::data {

struct LoaderOptions {
  Split split = Split::kTrain;
  int64_t global_batch = 1, micro_batch = 1;  // a step is global_batch samples in micro-batches
  bool shuffle = true, augment = true, drop_last = false;
  bool one_pass = false;  // evaluation: ends after one epoch
  uint64_t seed = 0;
  int threads = 1;          // 0: filled by the caller's thread in next()
  int64_t prefetch = 4;     // steps kept ready
  int rank = 0, world = 1;  // each rank gets its slice of every step
  // Over all ranks, a multiple of them: a rank's micro-batches are its logical shards, so many in
  // every step, empty ones (without tensors) where a step is too short. 0: as many as needed.
  int64_t shards = 0;
  DeviceRuntime* device = nullptr;  // pin and copy batches when set
};

// drop_last, threads and prefetch as section `data` says; the rest is for the caller to fill in.
LoaderOptions loader_options(const FieldSource& fields);

// The samples of one optimizer step. Steps never cross an epoch's end.
struct StepBatch {
  // this rank's micro-batches, in order; none where a short step has too few. A sample that the
  // data set leaves out is in none of them, and keeps its position.
  std::vector<Batch> micro;
  int64_t samples = 0;  // over all ranks; the last step of an epoch may be short; 0: one_pass ended
  int64_t position = 0;  // samples consumed before this step, counted globally from the start
  int64_t epoch = 0;
  bool ends_epoch = false;
};

class Loader {
 public:
  Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  // Continues after `samples` consumed samples; drops what was prefetched.
  void seek(int64_t samples);
  // The next step's samples; samples is 0 and micro empty when one_pass has ended (seek(0) begins
  // again). Errors of loader threads are thrown here, at the step they belong to. Memory of a batch
  // is used again once nobody refers to its tensors or to views of them.
  StepBatch next();
  // Waits for the step that next() would give and shows it, with tensors on the CPU, until then;
  // nullptr where one_pass has ended. Throws what next() would, so that ranks can stop together
  // before it.
  const StepBatch* peek();
  int64_t steps_per_epoch() const;
  int64_t samples_per_epoch() const;  // with drop_last, what an epoch uses

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lehr::data
