// The forward and backward of a micro-batch as one launch (`training.cuda_graph`): recorded once on
// the device, then replayed with other contents of the same memory, so that the host has nothing to
// launch between kernels. Whatever it would bake in and must not is refused: dropout, and any wait
// of the host for the device.
#pragma once

#include <functional>
#include <memory>

#include "engine/base/batch.h"
#include "engine/base/device.h"
#include "engine/base/named_tensor.h"

namespace lehr::step {

class MicroGraph {
 public:
  // `parameters`: those whose gradients a backward makes; `buffers`: batch statistics, which
  // warming up must not move. `device` outlives this.
  MicroGraph(DeviceRuntime& device, NamedTensors parameters, NamedTensors buffers);
  ~MicroGraph();
  // Whether this batch has the shapes that are recorded, or will be by the first run.
  bool fits(const Batch& batch) const;
  // `forward_backward` of the batch: returns its result, and leaves each parameter's gradient of
  // this batch alone in .grad, in memory that the next run overwrites. No gradient may be there
  // before. Throws Error{kRecipe} when it cannot be recorded.
  at::Tensor run(const Batch& batch,
                 const std::function<at::Tensor(const Batch&)>& forward_backward);

 private:
  void record(const Batch& batch, const std::function<at::Tensor(const Batch&)>& forward_backward);
  DeviceRuntime& device_;
  NamedTensors parameters_, buffers_;
  Batch inputs_;  // where the recorded work reads
  at::Tensor sum_;
  std::vector<at::Tensor> gradients_;
  std::unique_ptr<RecordedWork> work_;
};

}  // namespace lehr::step
