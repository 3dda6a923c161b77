// The way back from rounding.h: storage types to float on the host, exactly.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/rounding.h"

namespace lehr::kernels {

inline float widened(float value) { return value; }

inline float widened(BFloat16 value) {
  const uint32_t bits = uint32_t{value.bits} << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline float widened(Float16 value) {
  const uint32_t sign = uint32_t{value.bits} >> 15 << 31, magnitude = value.bits & 0x7fffu;
  float result;
  if (magnitude >= 0x7c00) {  // infinity and NaN
    const uint32_t bits = 0x7f800000 | (magnitude & 0x3ff) << 13;
    std::memcpy(&result, &bits, 4);
  } else if (magnitude >= 0x400) {  // normal: another bias of the exponent
    const uint32_t bits = (magnitude << 13) + (112u << 23);
    std::memcpy(&result, &bits, 4);
  } else {  // subnormal: a multiple of 2^-24
    result = static_cast<float>(magnitude) * 0x1p-24f;
  }
  uint32_t bits;
  std::memcpy(&bits, &result, 4);
  bits |= sign;
  std::memcpy(&result, &bits, 4);
  return result;
}

}  // namespace lehr::kernels
