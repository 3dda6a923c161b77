// One micro-batch as it travels from the loader to the step, the metrics and the exporter.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lehr {

struct Batch {
  // images: float32 [B, C, H, W] channels-last, normalised (or uint8 [B, H, W, C] when the device
  // normalises); tables: float32 [B, F]; text: token ids int64 [B, T]
  at::Tensor inputs;
  // classes: int64 [B]; values: float32 [B, K]; text: the next token, int64 [B, T], -100 where it
  // does not count
  at::Tensor targets;
  // the targets on the CPU, where `targets` are on a device, so that nobody waits to count them
  at::Tensor host_targets;
  // text packed from several documents: int64 [B, T], the same number within one document, so that
  // attention stays inside it; undefined where attention may reach all of the window
  at::Tensor segments;
  std::vector<int64_t> samples;  // ids within the split, for messages and keyed randomness
  int64_t epoch = 0;
  const at::Tensor& targets_to_count() const {
    return host_targets.defined() ? host_targets : targets;
  }
  int64_t size() const { return static_cast<int64_t>(samples.size()); }
};

}  // namespace lehr
