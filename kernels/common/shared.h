// Dynamic shared memory as a typed pointer. `DYN_SHARED(float, sums);` at function scope declares
// `float* const sums`, 16-byte aligned, of the size that the launch asked for. A macro, because
// CUDA wants an `extern` array here and the host stand-in of the tests a checked block of exact
// size.
#pragma once

#include <cuda_runtime.h>

#ifdef LEHR_CUDA_HOST
#define DYN_SHARED(T, name) T* const name = static_cast<T*>(cuda_host::dynamic_shared())
#else
#define DYN_SHARED(T, name)                                            \
  extern __shared__ __align__(16) unsigned char lehr_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(lehr_dynamic_shared)
#endif
