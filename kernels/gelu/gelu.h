// GELU by its tanh form (Hendrycks and Gimpel 2016), alone or with the bias of the linear layer
// before it: output = v (1 + tanh(u)) / 2 with v = x + bias and u = sqrt(2 / pi) (v + 0.044715
// v^3). Computed as v / (1 + e^-2u), which is the same and does not cancel for negative v.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// Bytes moved: rows x columns x 2 sizes of `type`. x and output may be the same. Pointers need the
// alignment of their element; 16 bytes for all (and with a bias whole packs in a row) take the fast
// path. Without a bias only rows x columns matters.
struct Gelu {
  const void* x;          // [rows, columns] of `type`
  const void* bias;       // [columns] of `bias_type`, or nullptr
  void* output;           // [rows, columns] of `type`
  int64_t rows, columns;  // 0 does nothing
  Float type, bias_type;  // bias_type is kFloat32 or `type`
};

// grad_x = grad * d output / d v, the gradient of x; that of bias is its sum over the rows, of the
// values before they are rounded to `type`. Bytes moved: rows x columns x 3 sizes of `type`, and
// the partial sums twice. grad_x and grad may be the same.
struct GeluBackward {
  const void* grad;  // [rows, columns] of `type`
  const void* x;     // the same
  const void* bias;  // [columns] of `bias_type`, or nullptr: then the next three are not used
  void* grad_x;      // [rows, columns] of `type`
  float* partials;   // scratch [chunks, columns]
  float* grad_bias;  // [columns]; 0 where there are no rows
  int64_t chunks;    // of rows: cpu_row_chunks or gelu_cuda_chunks; 0 for no rows
  int64_t rows, columns;
  Float type, bias_type;
};

// On a GPU a block takes a tile of 128 or 256 columns and a chunk of rows; about a thousand of
// them.
constexpr int64_t gelu_cuda_chunks(int64_t rows, int64_t columns) {
  const int64_t tiles = (columns + 127) / 128, chunks = tiles < 1024 ? 1024 / tiles : 1;
  const int64_t most = (rows + 7) / 8;  // eight rows at a time
  return chunks < most ? chunks : most;
}

// The oracles, in double.
void gelu_cpu(const Gelu& args);
void gelu_backward_cpu(const GeluBackward& args);

// What the op runs. With a bias: rows [begin, end), chunks [begin, end); without: elements.
void gelu_cpu_simd(const Gelu& args, int64_t begin, int64_t end);
void gelu_backward_cpu_simd(const GeluBackward& args, int64_t begin, int64_t end);

#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device; the bits depend on nothing but the arguments.
[[nodiscard]] cudaError_t gelu_cuda(const Gelu& args, cudaStream_t stream);
[[nodiscard]] cudaError_t gelu_backward_cuda(const GeluBackward& args, cudaStream_t stream);
#endif

}  // namespace lehr::kernels
