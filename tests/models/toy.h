// The registry's models at their toy sizes, with inputs, for the tests of this folder.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "models/model.h"

namespace lehr::models::testing {

// at these sizes a second thread costs more than it gives, most of all on a busy machine
inline const bool kOneThread = (at::set_num_threads(1), true);

inline std::shared_ptr<Model> toy(const ModelEntry& entry, uint64_t seed = 1,
                                  at::Device device = at::kCPU) {
  ModelContext context = entry.toy_context;
  context.seed = seed;
  context.options = at::TensorOptions().dtype(at::kFloat).device(device);
  return entry.make(entry.toy_fields, context);
}

inline at::Tensor toy_input(const ModelEntry& entry, int64_t batch, at::Device device = at::kCPU) {
  const ModelContext& c = entry.toy_context;
  if (c.vocabulary > 0) {
    const at::TensorOptions ids = at::TensorOptions().dtype(at::kLong).device(device);
    if (device.is_meta()) return at::empty({batch, c.context}, ids);
    return at::arange(batch * c.context, ids)
        .mul_(7)
        .bitwise_xor_(5)
        .remainder_(c.vocabulary)
        .view({batch, c.context});
  }
  const std::vector<int64_t> sizes =
      c.channels > 0 ? std::vector<int64_t>{batch, c.channels, c.height, c.width}
                     : std::vector<int64_t>{batch, c.features};
  if (device.is_meta()) return at::empty(sizes, at::TensorOptions().device(device));
  at::manual_seed(7);
  at::Tensor x = at::randn(sizes);
  return c.channels > 0 ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
}

// One class for each row of `flat` outputs.
inline at::Tensor toy_targets(const ModelEntry& entry, int64_t batch) {
  const int64_t rows = batch * std::max<int64_t>(1, entry.toy_context.context);
  return at::arange(rows, at::kLong).remainder(entry.toy_context.outputs);
}

// Outputs as rows of logits: [B, C], or [B, T, V] -> [B * T, V].
inline at::Tensor flat(const at::Tensor& outputs) {
  return outputs.dim() == 3 ? outputs.flatten(0, 1) : outputs;
}

// Dropout's key for samples [first, first + count) while it lives.
class Keyed {
 public:
  Keyed(int64_t step, int64_t first, int64_t count, uint64_t seed = 3)
      : samples_(static_cast<size_t>(count)) {
    std::iota(samples_.begin(), samples_.end(), first);
    key_ = {seed, step, &samples_};
    set_dropout_key(&key_);
  }
  ~Keyed() { set_dropout_key(nullptr); }
  Keyed(const Keyed&) = delete;
  Keyed& operator=(const Keyed&) = delete;

 private:
  std::vector<int64_t> samples_;
  DropoutKey key_;
};

inline void clear_gradients(const Model& model) {
  for (const auto& [name, tensor] : model.parameters()) tensor.mutable_grad().reset();
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace lehr::models::testing
