// Models, options and values of adamw's tests; no LibTorch, so that the host builds read it too.
// The update has no tolerance: from one norm every implementation gives the same bits. The norm is
// a sum of doubles in another order here and there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/adamw/adamw.h"

namespace lehr::kernels {

constexpr double kNormTolerance = 1e-13;  // relative

struct ModelCase {
  std::vector<int64_t> counts;
  Float gradients;
  bool copies;
  Float copy_type;
  bool averages;
  std::string name() const {
    return std::to_string(counts.size()) + " tensors, gradients " +
           std::to_string(static_cast<int>(gradients)) + ", copies " +
           (copies ? std::to_string(static_cast<int>(copy_type)) : "none") +
           (averages ? ", averages" : "");
  }
};

inline std::vector<ModelCase> adamw_cases() {
  const Float f32 = Float::kFloat32, bf16 = Float::kBFloat16, f16 = Float::kFloat16;
  // more chunks than the stand-in has blocks
  std::vector<int64_t> small = {1, 0, 3, 4, 17, 0, 1000, 0};
  for (int64_t i = 0; i < 20; ++i) small.push_back(i);
  // chunks that are full, one over
  const std::vector<int64_t> large = {kAdamWChunk, 5, 0, kAdamWChunk + 1};
  return {
      {small, f32, false, f32, false}, {small, bf16, true, bf16, true},
      {small, f16, true, f16, false},  {small, f32, true, f32, true},
      {large, f32, false, f32, true},  {large, bf16, true, bf16, false},
      {{}, f32, false, f32, false},    {{0, 0}, f32, false, f32, false},
  };
}

// Normal-looking numbers of a seed: products of two uniform ones, some of them zero.
inline std::vector<float> adamw_values(int64_t count, uint32_t seed, float scale) {
  std::vector<float> values(static_cast<size_t>(count));
  uint32_t state = seed * 2654435761u + 1;
  const auto uniform = [&] {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / (1 << 24) - 0.5f;
  };
  for (auto& value : values) value = (state >> 28) == 3 ? 0 : uniform() * uniform() * scale;
  return values;
}

}  // namespace lehr::kernels
