// Which vector instructions the CPU paths beside the oracles may use. They compute on sixteen
// floats at a time with either set (vector_exp.h), so that both give the same bits.
#pragma once

#include <cstdint>

namespace lehr::kernels {

enum class Simd : uint8_t { kNone, kAvx2, kAvx512 };

// Whether this CPU runs `set`; AVX2 includes fused multiply-adds and half conversions.
inline bool supports(Simd set) {
#if defined(__x86_64__)
  if (set == Simd::kAvx512) return __builtin_cpu_supports("avx512f") != 0;
  if (set == Simd::kAvx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
#endif
  return set == Simd::kNone;
}

inline Simd widest_simd() {
  static const Simd widest = supports(Simd::kAvx512) ? Simd::kAvx512
                             : supports(Simd::kAvx2) ? Simd::kAvx2
                                                     : Simd::kNone;
  return widest;
}

}  // namespace lehr::kernels
