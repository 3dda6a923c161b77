// Shapes, options, values and tolerances of cross_entropy's tests; no LibTorch, so that the host
// builds read it too.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cross_entropy/cross_entropy.h"
#include "tests/kernels/floats.h"

namespace lehr::kernels {

struct ClassifierShape {
  int64_t rows, vocabulary, stride;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(vocabulary) + "of" + std::to_string(stride);
  }
};

inline std::vector<ClassifierShape> cross_entropy_shapes() {
  return {
      {0, 5, 5},        // no rows
      {3, 1, 1},        // one class: loss 0
      {2, 3, 8},        // less than a pack, the rest padding
      {5, 16, 16},      // a vector, no tail
      {37, 65, 65},     // characters
      {9, 100, 128},    // padded
      {4, 1024, 1024},  // the longest row of a warp
      {3, 1031, 1032},  // a block, a prime vocabulary
      {3, 4099, 4099},  // rows that are not aligned; more than one run of sums
      {2, 6000, 6016},  // more than one turn of a block
  };
}

// {label smoothing, z-loss}
inline std::vector<std::pair<float, float>> cross_entropy_options() {
  return {{0, 0}, {0.1f, 0}, {0, 1e-3f}, {0.3f, 0.01f}, {1, 0}};
}

// Logits of both signs; `hard`: rows far from zero, a lonely huge one, masked (-inf) ones, all
// equal.
inline std::vector<float> cross_entropy_logits(const ClassifierShape& shape, bool hard) {
  std::vector<float> values(static_cast<size_t>(shape.rows * shape.stride));
  uint32_t state = 2024;
  for (int64_t r = 0; r < shape.rows; ++r) {
    for (int64_t j = 0; j < shape.stride; ++j) {
      state = state * 1664525u + 1013904223u;
      float value = (static_cast<float>(state >> 8) / (1 << 24) - 0.5f) * 12;
      if (hard && r % 4 == 0) value += 3000;
      if (hard && r % 4 == 1 && j == shape.vocabulary / 2) value = 200;
      if (hard && r % 4 == 2 && j % 3 == 1) value = -std::numeric_limits<float>::infinity();
      if (hard && r % 4 == 3) value = -7;
      // nobody may read the padding
      if (j >= shape.vocabulary) value = std::numeric_limits<float>::quiet_NaN();
      values[static_cast<size_t>(r * shape.stride + j)] = value;
    }
  }
  return values;
}

// Every third row is ignored; never a masked class.
inline std::vector<int64_t> cross_entropy_targets(const ClassifierShape& shape) {
  std::vector<int64_t> targets;
  for (int64_t r = 0; r < shape.rows; ++r) {
    int64_t target = r * 7919 % shape.vocabulary;
    target -= target % 3;
    targets.push_back(r % 3 == 1 ? kIgnoredTarget : target);
  }
  return targets;
}

// Losses are float32 whatever the logits are; a gradient is rounded once to its type, to either
// side where two roundings fall apart; the rest is exp and float sums.
inline Tolerance cross_entropy_loss_tolerance() { return {1e-5, 2e-6}; }
inline Tolerance cross_entropy_gradient_tolerance(Float type) {
  switch (type) {
    case Float::kFloat32:
      return {5e-7, 4e-6};
    case Float::kBFloat16:
      return {1e-6, 0x1p-7};
    case Float::kFloat16:
      return {1e-6, 0x1p-10};
  }
  return {0, 0};
}

}  // namespace lehr::kernels
