// CUDA's own half type, which computes on the host too, and the few functions that it keeps for
// nvcc.
#pragma once

// ours first, or its words are CUDA's already
// clang-format off
#include <cuda_runtime.h>
#include_next <cuda_fp16.h>
// clang-format on

inline __half __ldg(const __half* pointer) { return *pointer; }
inline __half hexp(__half x) { return __float2half_rn(expf(__half2float(x))); }
inline __half __hfma(__half a, __half b, __half c) {
  return __float2half_rn(fmaf(__half2float(a), __half2float(b), __half2float(c)));
}
