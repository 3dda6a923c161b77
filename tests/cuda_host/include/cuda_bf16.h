// CUDA's own bfloat16 type, which computes on the host too, and the few functions that it keeps for
// nvcc.
#pragma once

// ours first, or its words are CUDA's already
// clang-format off
#include <cuda_runtime.h>
#include_next <cuda_bf16.h>
// clang-format on

inline __nv_bfloat16 __ldg(const __nv_bfloat16* pointer) { return *pointer; }
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __float2bfloat16_rn(fmaf(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}
