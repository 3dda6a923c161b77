// No LibTorch here: the host builds use it too.
#pragma once

#include <string>

#include "kernels/common/simd_level.h"

namespace lehr::kernels {

// under every vector width that this machine has
template <class Body>
void with_every_simd_level(Body body) {
  const SimdLevel widest = simd_level();
  for (SimdLevel level : {SimdLevel::kPlain, SimdLevel::kAvx2, SimdLevel::kAvx512}) {
    if (level > widest_simd_level()) continue;
    simd_level() = level;
    body(" width " + std::to_string(static_cast<int>(level)));
  }
  simd_level() = widest;
}

}  // namespace lehr::kernels
