// Shapes of SwiGLU's tests; no LibTorch. Tolerance: one rounding to the storage type (floats.h).
#pragma once

#include <vector>

#include "tests/kernels/layer_norm_cases.h"

namespace lehr::kernels {

// columns: of the output
inline std::vector<RowShape> swiglu_shapes() {
  return {
      {0, 8},     // no rows
      {1, 1},     //
      {3, 2},     // less than a pack
      {5, 8},     // one pack of 2-byte numbers
      {7, 33},    // odd
      {3, 1032},  // more packs than one turn of the stand-in's device
      {70, 520},  // every thread of it turns more than once
  };
}

}  // namespace lehr::kernels
