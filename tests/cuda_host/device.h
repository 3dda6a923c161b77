// What nvcc gives a kernel without an include: indices, barriers, warp functions, atomics, cache
// hints and arithmetic intrinsics. Only what whole warps may do; no inline PTX, no spinning between
// blocks.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/race.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// each function reads its caller's file and line through default arguments
#define CUDA_HOST_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// --- barriers and fences ---

inline void __syncthreads(CUDA_HOST_HERE) { cuda_host::sync_threads({file, line}); }
inline int __syncthreads_count(int predicate, CUDA_HOST_HERE) {
  return cuda_host::sync_threads_count(predicate != 0, {file, line});
}
inline int __syncthreads_or(int predicate, CUDA_HOST_HERE) {
  return cuda_host::sync_threads_count(predicate != 0, {file, line}) > 0;
}
inline int __syncthreads_and(int predicate, CUDA_HOST_HERE) {
  return cuda_host::sync_threads_count(predicate == 0, {file, line}) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_HOST_HERE) {
  cuda_host::sync_warp(mask, {file, line});
}
// fences order memory but make nobody wait; the race checker takes no account of them
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __trap(CUDA_HOST_HERE) { cuda_host::trap("__trap", {file, line}); }

// --- warps ---

namespace cuda_host {
template <class T>
T shuffle_value(Exchange how, unsigned mask, T value, unsigned operand, int width, Site site) {
  static_assert(sizeof(T) <= 8);  // __nv_bfloat162 is not trivially copyable on the host
  uint64_t bits = 0;
  std::memcpy(&bits, static_cast<const void*>(&value), sizeof(T));
  bits = shuffle(how, mask, bits, operand, width, site);
  std::memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}
template <class T, class F>
T reduce_lanes(unsigned mask, T value, F combine, Site site) {
  uint64_t lanes[32];
  gather(mask, static_cast<uint64_t>(value), lanes, site);
  bool first = true;
  T result = value;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    result = first ? static_cast<T>(lanes[i]) : combine(result, static_cast<T>(lanes[i]));
    first = false;
  }
  return result;
}
}  // namespace cuda_host

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_HOST_HERE) {
  return cuda_host::shuffle_value(cuda_host::Exchange::kIndex, mask, value,
                                  static_cast<unsigned>(source), width, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_HERE) {
  return cuda_host::shuffle_value(cuda_host::Exchange::kUp, mask, value, delta, width,
                                  {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_HERE) {
  return cuda_host::shuffle_value(cuda_host::Exchange::kDown, mask, value, delta, width,
                                  {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_HOST_HERE) {
  return cuda_host::shuffle_value(cuda_host::Exchange::kXor, mask, value,
                                  static_cast<unsigned>(lanes), width, {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_HOST_HERE) {
  uint64_t lanes[32];
  cuda_host::gather(mask, predicate != 0, lanes, {file, line});
  unsigned ballot = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1 && lanes[i]) ballot |= 1u << i;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_HOST_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_HOST_HERE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, CUDA_HOST_HERE) {
  uint64_t bits = 0, lanes[32];
  std::memcpy(&bits, &value, sizeof(T));
  cuda_host::gather(mask, bits, lanes, {file, line});
  unsigned same = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1 && lanes[i] == bits) same |= 1u << i;
  return same;
}
template <class T>  // int or unsigned, as on sm_80
T __reduce_add_sync(unsigned mask, T value, CUDA_HOST_HERE) {
  return static_cast<T>(cuda_host::reduce_lanes(mask, static_cast<unsigned>(value),
                                                [](unsigned a, unsigned b) { return a + b; },
                                                {file, line}));
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, CUDA_HOST_HERE) {
  return cuda_host::reduce_lanes(mask, value, [](T a, T b) { return a > b ? a : b; }, {file, line});
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, CUDA_HOST_HERE) {
  return cuda_host::reduce_lanes(mask, value, [](T a, T b) { return a < b ? a : b; }, {file, line});
}

// --- atomics: fibers never interleave inside one, so plain code does; the checker is told ---

namespace cuda_host {
template <class T, class F>
__attribute__((no_sanitize("thread"))) T atomic_update(T* address, F change, Site site) {
  race::atomic(address, sizeof(T), site);
  const T old = *address;
  *address = change(old);
  return old;
}
}  // namespace cuda_host

#define CUDA_HOST_ATOMIC(name, expression)                                                        \
  template <class T>                                                                              \
  T name(T* address, std::type_identity_t<T> value, CUDA_HOST_HERE) {                             \
    return cuda_host::atomic_update(                                                              \
        address, [value](T old) __attribute__((no_sanitize("thread")))->T { return expression; }, \
        {file, line});                                                                            \
  }
CUDA_HOST_ATOMIC(atomicAdd, static_cast<T>(old + value))
CUDA_HOST_ATOMIC(atomicSub, static_cast<T>(old - value))
CUDA_HOST_ATOMIC(atomicMax, old > value ? old : value)
CUDA_HOST_ATOMIC(atomicMin, old < value ? old : value)
CUDA_HOST_ATOMIC(atomicAnd, old& value)
CUDA_HOST_ATOMIC(atomicOr, old | value)
CUDA_HOST_ATOMIC(atomicXor, old ^ value)
CUDA_HOST_ATOMIC(atomicExch, value)
#undef CUDA_HOST_ATOMIC
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value,
            CUDA_HOST_HERE) {
  return cuda_host::atomic_update(address,
                                  [=](T old) __attribute__((no_sanitize("thread")))->T {
                                    return old == expected ? value : old;
                                  },
                                  {file, line});
}

// --- cache hints are plain accesses here ---

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <class T>
void __stcg(T* address, std::type_identity_t<T> value) {
  *address = value;
}

// --- arithmetic: compiled with -ffp-contract=off, so a product and a sum stay two roundings ---

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline int __popc(unsigned a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __ffs(int a) { return a == 0 ? 0 : std::countr_zero(static_cast<unsigned>(a)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> min(
    A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> max(
    A a, B b) {
  using T = std::common_type_t<A, B>;
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}
