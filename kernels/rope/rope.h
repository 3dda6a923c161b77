// Rotary position embedding (Su et al. 2021) of packed q | k | v rows, half-split as in Llama: with
// x1 and x2 the halves of a head, (x1 cos - x2 sin, x2 cos + x1 sin) for q and k; v stays.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// In place (output = qkv) or out of place (no overlap), which copies v too. Bytes moved: 2 sizes of
// `type` for each element of q and k, of v too out of place; cos and sin stay in the caches.
// Pointers need the alignment of their element; 16 bytes for all, and whole packs in half a head,
// take the fast path.
struct Rope {
  const void* qkv;       // [rows, heads + kept_heads, head_dim] of `type`
  void* output;          // the same
  const float* cos_sin;  // [positions, head_dim]: first half cos, second half sin
  int64_t rows;          // batch x positions, row r at position r % positions; 0 does nothing
  int64_t positions;     // >= 1
  int64_t heads;         // those that turn: of q, then of k
  int64_t kept_heads;    // those of v
  int64_t head_dim;      // even, >= 2
  bool inverse;          // by the negative angle: the backward
  Float type;
};

// The oracle, in double.
void rope_cpu(const Rope& args);

// What the op runs: rows [begin, end).
void rope_cpu_simd(const Rope& args, int64_t begin, int64_t end);

#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device.
[[nodiscard]] cudaError_t rope_cuda(const Rope& args, cudaStream_t stream);
#endif

}  // namespace lehr::kernels
