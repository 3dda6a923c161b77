#include "engine/step/shared_batch.h"

#include <ATen/ATen.h>

namespace lehr::step {

SharedBatch::SharedBatch(dist::World& world)
    : world_(world.split(0)), sum_([this](at::Tensor tensor) {
        sizes_.push_back(tensor.numel());
        device_ = tensor.device();
        world_->sum(tensor);
      }) {}

void SharedBatch::stand_in(bool with_backward) {
  if (sizes_.empty())
    throw Error(Code::kRanks,
                "this rank has no sample in its first step, so it does not know which batch "
                "statistics the others sum",
                "parallelism.batch_norm", "set data.drop_last: true, or begin on fewer ranks");
  const size_t sums = with_backward ? sizes_.size() : forwards_;
  for (size_t i = 0; i < sums; ++i)
    world_->sum(at::zeros({sizes_[i]}, at::TensorOptions(at::kDouble).device(device_)));
}

}  // namespace lehr::step
