// Shapes of RoPE's tests; no LibTorch. Tolerance: one rounding to the storage type (floats.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels/floats.h"

namespace lehr::kernels {

struct RopeShape {
  int64_t batch, positions, heads, kv_heads, head_dim;
  int64_t columns() const { return (heads + 2 * kv_heads) * head_dim; }
  int64_t elements() const { return batch * positions * columns(); }
  std::string name() const {
    return std::to_string(batch) + "x" + std::to_string(positions) + " heads " +
           std::to_string(heads) + "+" + std::to_string(kv_heads) + " of " +
           std::to_string(head_dim);
  }
};

inline std::vector<RopeShape> rope_shapes() {
  return {
      {0, 4, 2, 2, 8},   // no rows
      {2, 0, 2, 2, 8},   // no positions
      {1, 1, 1, 1, 2},   // one angle
      {2, 3, 1, 1, 6},   // halves of less than a pack
      {2, 5, 3, 3, 16},  // whole packs
      {3, 7, 4, 1, 64},  // grouped queries
      {1, 9, 4, 2, 40},  // half of 20: packs of floats, none of 2-byte numbers
      {2, 33, 6, 2, 128},
  };
}

// angles of the usual base of 10000, as one table
inline std::vector<float> rope_table(int64_t positions, int64_t head_dim) {
  std::vector<float> table;
  for (int64_t t = 0; t < positions; ++t)
    for (int part = 0; part < 2; ++part)
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        const double angle =
            static_cast<double>(t + 1) *
            std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        table.push_back(static_cast<float>(part == 0 ? std::cos(angle) : std::sin(angle)));
      }
  return table;
}

}  // namespace lehr::kernels
