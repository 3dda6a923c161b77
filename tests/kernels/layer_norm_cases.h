// Shapes of layer norm's and RMS norm's tests; no LibTorch. Tolerances: one rounding to the storage
// type (floats.h), and for sums over rows the table's float32 row whatever the type.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels/floats.h"

namespace lehr::kernels {

struct RowShape {
  int64_t rows, columns;
  std::string name() const { return std::to_string(rows) + "x" + std::to_string(columns); }
};

inline std::vector<RowShape> norm_shapes() {
  return {
      {0, 8},      // no rows: the parameters' gradients are 0
      {1, 1},      // variance 0
      {3, 2},      // less than a pack
      {5, 8},      // one pack of 2-byte numbers
      {7, 33},     // odd: element by element
      {3, 100},    // packs of floats and of nothing wider
      {37, 128},   // a warp a row; more than one chunk
      {2, 1032},   // two packs for some threads, one for others
      {1, 4097},   // odd and long
      {70, 520},   //
      {300, 24},   // many chunks
      {2, 12296},  // partial sums too large for shared memory
  };
}

}  // namespace lehr::kernels
