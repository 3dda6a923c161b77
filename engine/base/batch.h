// One micro-batch as it travels from the loader to the step, the metrics and the exporter.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lehr {

struct Batch {
  // images: float32 [B, C, H, W] channels-last, normalised (or uint8 [B, H, W, C] when the device
  // normalises); tables: float32 [B, F]
  at::Tensor inputs;
  at::Tensor targets;            // classes: int64 [B]; values: float32 [B, K]
  std::vector<int64_t> samples;  // ids within the split, for messages and keyed randomness
  int64_t epoch = 0;
  int64_t size() const { return static_cast<int64_t>(samples.size()); }
};

}  // namespace lehr
