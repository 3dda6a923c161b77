// Shapes and hard values of GELU's tests; no LibTorch. Tolerances: one rounding to the storage type
// (floats.h), and for sums over rows its float32 row whatever the type.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "tests/kernels/layer_norm_cases.h"

namespace lehr::kernels {

inline std::vector<RowShape> gelu_shapes() {
  return {
      {0, 8},     // no rows
      {1, 1},     //
      {3, 2},     // less than a pack
      {5, 8},     // one pack of 2-byte numbers
      {7, 33},    // odd
      {37, 128},  // more than one chunk
      {2, 1032},  // a last tile that is not full
      {70, 520},  //
      {300, 24},  // many chunks
      {1, 4097},  //
  };
}

// where the forms with e^x overflow, vanish, or meet infinity
inline std::vector<float> gelu_hard_values() {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> values = {0,      -0.0f, 1e-30f, -1e-30f, 1e-40f,  -1e-40f,      10,
                               -10,    11,    -11,    88,      -88,     1e4f,         -1e4f,
                               6e4f,   -6e4f, 1e13f,  -1e13f,  3e38f,   -3e38f,       infinity,
                               -12.9f, 12.9f, -5.5f,  -9.99f,  -10.01f, std::nanf("")};
  for (int i = -120; i <= 120; ++i) values.push_back(static_cast<float>(i) / 8);
  return values;
}

}  // namespace lehr::kernels
