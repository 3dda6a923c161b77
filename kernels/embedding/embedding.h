// Token embeddings, alone or with the position's added in the same pass, and their gradients. A row
// of a gradient is the sum over its tokens in the order of the batch: one thread walks them, so no
// atomics, and every implementation gives the same bits.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// output[i] = weight[ids[i]] (+ positions[i % length]), added in float and rounded once. An id
// outside the vocabulary gives a row of NaN.
// Bytes moved: tokens x width x element size read and written, 8 a token; the positions' rows stay
// in the caches. Pointers need the alignment of their element; 16 bytes for all of them and for
// width x element size take the fast path.
struct Embedding {
  const void* weight;     // [vocabulary, width] of `type`
  const void* positions;  // [at least length, width] of `type`, or nullptr
  const int64_t* ids;     // [tokens]
  void* output;           // [tokens, width] of `type`
  int64_t tokens;         // 0 does nothing
  int64_t width;          // 0 does nothing
  int64_t vocabulary;
  int64_t length;  // of a sequence: divides tokens; read only with positions
  Float type;
};

// Sums in float the rows of `gradient` that belong together and rounds each sum once. By id:
// sorted_ids ascend and order says which token each was, equal ones in the order of the batch. By
// position, where both are nullptr: row t is the sum over the sequences.
// Bytes moved: tokens x width x element size read, the rows that occur written, 16 a token by id.
// Rows that do not occur are left as they are; ids outside [0, rows) are passed over.
struct EmbeddingGradient {
  const void* gradient;       // [tokens, width] of `type`
  const int64_t* sorted_ids;  // [tokens]
  const int64_t* order;       // [tokens]
  void* result;               // [rows, width] of `type`
  int64_t tokens, width;      // 0 does nothing
  int64_t rows;
  int64_t length;  // of a sequence, by position
  Float type;
};

// Tokens [begin, end), so that threads can share them; sums go to whoever holds their first token
// in sorted order.
void embedding_cpu(const Embedding& args, int64_t begin, int64_t end);
void embedding_gradient_cpu(const EmbeddingGradient& args, int64_t begin, int64_t end);
// The same by vectors, the same bits.
void embedding_cpu_simd(const Embedding& args, int64_t begin, int64_t end);
void embedding_gradient_cpu_simd(const EmbeddingGradient& args, int64_t begin, int64_t end);
#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device.
[[nodiscard]] cudaError_t embedding_cuda(const Embedding& args, cudaStream_t stream);
[[nodiscard]] cudaError_t embedding_gradient_cuda(const EmbeddingGradient& args,
                                                  cudaStream_t stream);
#endif

}  // namespace lehr::kernels
