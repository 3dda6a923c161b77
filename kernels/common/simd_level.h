// Which vector width the CPU loops use: found once, the widest that the machine has.
#pragma once

#include <cstdint>

namespace lehr::kernels {

enum class SimdLevel : uint8_t { kPlain, kAvx2, kAvx512 };

inline SimdLevel widest_simd_level() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return SimdLevel::kAvx512;
  if (avx2) return SimdLevel::kAvx2;
#endif
  return SimdLevel::kPlain;
}

// A reference, so that tests can walk the narrower ones too; nothing else writes it.
inline SimdLevel& simd_level() {
  static SimdLevel level = widest_simd_level();
  return level;
}

}  // namespace lehr::kernels
