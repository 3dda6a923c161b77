#include "engine/step/masters.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

namespace lehr::step {

Masters::Masters(const models::Module& model, bool low) {
  for (const auto& [name, parameter] : model.parameters()) {
    if (!low || parameter.dim() < 2) {
      weights_.push_back({name, parameter});
      copies_.emplace_back();
      continue;
    }
    const at::Tensor master = parameter.detach();
    copies_.push_back({parameter, master.to(at::kBFloat16)});
    // a tensor of its own on the old memory, then other memory under the model's
    weights_.push_back({name, master});
    copies_.back().own.set_data(copies_.back().rounded);
  }
}

at::Tensor Masters::copy_of(const std::string& name) const {
  for (size_t i = 0; i < weights_.size(); ++i)
    if (weights_[i].name == name) return copies_[i].own;
  return {};
}

void Masters::round() {
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < copies_.size(); ++i)
    if (copies_[i].rounded.defined()) copies_[i].rounded.copy_(weights_[i].tensor);
}

void Masters::in_float32(const std::function<void()>& work) {
  struct Swap {  // back also when `work` throws
    Masters& masters;
    explicit Swap(Masters& m) : masters(m) {
      for (size_t i = 0; i < masters.copies_.size(); ++i)
        if (at::Tensor& own = masters.copies_[i].own; own.defined())
          own.set_data(masters.weights_[i].tensor);
    }
    ~Swap() {
      masters.round();
      for (auto& [own, rounded] : masters.copies_)
        if (own.defined()) own.set_data(rounded);
    }
  } swap(*this);
  work();
}

}  // namespace lehr::step
