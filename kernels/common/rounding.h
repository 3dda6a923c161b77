// Host twins of the device's float conversions, for the oracles: round to nearest even, the bits
// that CUDA and ATen give for every number (a NaN stays a NaN, its payload may differ).
#pragma once

#include <cstdint>
#include <cstring>

namespace lehr::kernels {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline float widened(float value) { return value; }

inline float widened(BFloat16 value) {
  const uint32_t bits = uint32_t{value.bits} << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline float widened(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16, magnitude = value.bits & 0x7fffu;
  uint32_t bits;
  if (magnitude >= 0x7c00) {  // infinity or NaN
    bits = sign | 0x7f800000 | (magnitude & 0x3ff) << 13;
  } else if (magnitude >= 0x400) {
    bits = sign | ((magnitude << 13) + 0x38000000);
  } else {  // subnormal: a multiple of 2^-24
    const float value_of = static_cast<float>(magnitude) * 0x1p-24f;
    std::memcpy(&bits, &value_of, 4);
    bits |= sign;
  }
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

template <class T>
T rounded(float value);

template <>
inline float rounded<float>(float value) {
  return value;
}

template <>
inline BFloat16 rounded<BFloat16>(float value) {
  if (value != value) return {0x7fff};
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <>
inline Float16 rounded<Float16>(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7fff;
  } else if (magnitude >= 0x477ff000) {  // 65520 and above round to infinity
    half = 0x7c00;
  } else if (magnitude >= 0x38800000) {  // normal: 2^-14 and above
    half = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  } else {  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    float small;
    std::memcpy(&small, &magnitude, 4);
    small += 0.5f;
    std::memcpy(&half, &small, 4);
    half -= 0x3f000000;
  }
  return {static_cast<uint16_t>(sign | half)};
}

}  // namespace lehr::kernels
