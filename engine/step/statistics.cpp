#include "engine/step/statistics.h"

#include <ATen/ATen.h>

#include <numeric>

namespace lehr::step {

Statistics::Statistics(const NamedTensors& buffers, at::Device device) : device_(device) {
  for (const auto& buffer : buffers) {
    const at::Tensor tensor = buffer.tensor.detach();
    auto alike = std::find_if(groups_.begin(), groups_.end(), [&](const Alike& group) {
      return group.tensors[0].scalar_type() == tensor.scalar_type();
    });
    if (alike == groups_.end()) alike = groups_.insert(alike, Alike{});
    alike->tensors.push_back(tensor);
    alike->sizes.push_back(tensor.numel());
    size_ += tensor.numel();
  }
}

at::Tensor Statistics::values() const {
  std::vector<at::Tensor> all;
  for (const Alike& group : groups_) {
    std::vector<at::Tensor> flat;
    for (const auto& tensor : group.tensors) flat.push_back(tensor.flatten());
    all.push_back(at::cat(flat).to(at::kDouble));
  }
  if (all.empty()) return at::empty({0}, at::TensorOptions(at::kDouble).device(device_));
  return at::cat(all);
}

void Statistics::set(const at::Tensor& values) const {
  int64_t offset = 0;
  for (const Alike& group : groups_) {
    const int64_t size = std::accumulate(group.sizes.begin(), group.sizes.end(), int64_t{0});
    const auto flat = values.narrow(0, offset, size).to(group.tensors[0].scalar_type());
    std::vector<at::Tensor> parts = flat.split_with_sizes(group.sizes);
    for (size_t i = 0; i < parts.size(); ++i) parts[i] = parts[i].view(group.tensors[i].sizes());
    at::_foreach_copy_(group.tensors, parts);
    offset += size;
  }
}

}  // namespace lehr::step
