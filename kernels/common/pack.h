// Values that travel in one memory access: an aligned struct, which nvcc turns into a single load
// or store of up to 16 bytes. The one way for kernels to make wide accesses; the pointer must be
// aligned to the pack (ask `aligned` in the launcher), or the device faults.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lehr::kernels {

constexpr int kPackBytes = 16;  // the widest access that sm_80 and sm_90 have

template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  static_assert(sizeof(T) * kWidth <= kPackBytes);
  T values[kWidth];
  __host__ __device__ T& operator[](int i) { return values[i]; }
  __host__ __device__ const T& operator[](int i) const { return values[i]; }
};

// The index-th pack of an array.
template <int kWidth, class T>
__device__ inline Pack<T, kWidth> load_pack(const T* array, int64_t index) {
  return reinterpret_cast<const Pack<T, kWidth>*>(array)[index];
}
template <class T, int kWidth>
__device__ inline void store_pack(T* array, int64_t index, const Pack<T, kWidth>& pack) {
  reinterpret_cast<Pack<T, kWidth>*>(array)[index] = pack;
}

inline bool aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

}  // namespace lehr::kernels
