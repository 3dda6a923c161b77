#include "engine/step/flat.h"

#include <ATen/ATen.h>

namespace lehr::step {

FlatGradients::FlatGradients(NamedTensors parameters) : parameters_(std::move(parameters)) {
  for (const auto& p : parameters_) {
    offsets_.push_back(numbers_);
    numbers_ += p.tensor.numel();
  }
}

at::Tensor FlatGradients::empty() const {
  return at::empty({numbers_ + static_cast<int64_t>(count())}, at::kFloat);
}

at::Tensor FlatGradients::place(const at::Tensor& flat, size_t i) const {
  const at::Tensor& p = parameters_[i].tensor;
  return flat.as_strided(p.sizes(), p.strides(), flat.storage_offset() + offsets_[i]);
}

at::Tensor FlatGradients::mark(const at::Tensor& flat, size_t i) const {
  return flat.select(0, numbers_ + static_cast<int64_t>(i));
}

at::Tensor FlatGradients::join(const Tensors& gradients) const {
  at::Tensor flat = empty().zero_();
  for (size_t i = 0; i < count(); ++i) {
    if (!gradients[i].defined()) continue;
    place(flat, i).copy_(gradients[i]);
    mark(flat, i).fill_(1);
  }
  return flat;
}

Tensors FlatGradients::split(const at::Tensor& flat) const {
  Tensors gradients;
  const float* marks = flat.const_data_ptr<float>() + numbers_;
  for (size_t i = 0; i < count(); ++i)
    gradients.push_back(marks[i] == 0 ? at::Tensor() : place(flat, i));
  return gradients;
}

}  // namespace lehr::step
