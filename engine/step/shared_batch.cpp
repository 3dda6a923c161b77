#include "engine/step/shared_batch.h"

#include <ATen/ATen.h>

namespace lehr::step {

SharedBatch::SharedBatch(dist::World& world)
    : world_(world.split(0)), sum_([this](at::Tensor tensor) {
        sizes_.push_back(tensor.numel());
        device_ = tensor.device();
        if (!learns_) world_->sum(tensor);
      }) {}

void SharedBatch::learn(const std::function<void()>& forward_and_backward) {
  struct Learning {
    explicit Learning(bool& flag) : flag(flag) { flag = true; }
    ~Learning() { flag = false; }
    bool& flag;
  } learning(learns_);
  begin();
  forward_and_backward();
}

void SharedBatch::stand_in(bool with_backward) {
  const size_t sums = with_backward ? sizes_.size() : forwards_;
  for (size_t i = 0; i < sums; ++i)
    world_->sum(at::zeros({sizes_[i]}, at::TensorOptions(at::kDouble).device(device_)));
}

}  // namespace lehr::step
