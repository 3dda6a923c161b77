// Layer norm over the last dimension (Ba, Kiros and Hinton 2016), alone or fused with the residual
// addition before it: sum = x + residual (rounded to `type`), then
// output = (sum - mean) * rstd * weight + bias with rstd = 1 / sqrt(variance + eps). The variance
// takes a second look at the row instead of E[x^2] - mean^2, which cancels.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// Bytes moved: rows x columns x 2 sizes of `type` (4 with a residual); a row's second and third
// look hit the caches. `output` and `sum` may not overlap anything else. Pointers need the
// alignment of their element; 16 bytes for all, and whole packs in a row, take the fast path.
struct LayerNorm {
  const void* x;         // [rows, columns] of `type`
  const void* residual;  // the same, or nullptr: nothing is added and `sum` is not written
  const void* weight;    // [columns] of `parameter_type`
  const void* bias;      // the same
  void* output;          // [rows, columns] of `type`
  void* sum;             // the same; what the backward takes as its x
  float* stats;          // [2, rows]: mean, rstd
  int64_t rows;          // 0 does nothing
  int64_t columns;       // >= 1
  float eps;
  Float type, parameter_type;  // parameter_type is kFloat32 or `type`
};

// grad_x = rstd * (g w - mean(g w) - x_hat * mean(g w x_hat)) + grad_sum, the gradient of x and of
// the residual alike; the gradients of weight and bias are sums over the rows of g x_hat and g.
// Bytes moved: rows x columns x 3 sizes of `type` (4 with grad_sum), and the partial sums twice.
struct LayerNormBackward {
  const void* grad;        // [rows, columns] of `type`: of the output
  const void* grad_sum;    // the same: what else flows into the sum; or nullptr
  const void* x;           // the same: what was normalised
  const void* weight;      // [columns] of `parameter_type`
  const float* stats;      // [2, rows], from the forward
  void* grad_x;            // [rows, columns] of `type`; may be grad_sum itself
  float* partials;         // scratch [chunks, 2, columns]
  float* grad_parameters;  // [2, columns]: of weight, of bias; 0 where there are no rows
  int64_t rows, columns;
  int64_t chunks;  // cpu_row_chunks or cuda_row_chunks of common/chunks.h; 0 for no rows
  Float type, parameter_type;
};

// The oracles: the sums in double.
void layer_norm_cpu(const LayerNorm& args);
void layer_norm_backward_cpu(const LayerNormBackward& args);

// What the op runs: rows [begin, end), and chunks [begin, end) of the backward's first stage.
void layer_norm_cpu_simd(const LayerNorm& args, int64_t begin, int64_t end);
void layer_norm_backward_cpu_simd(const LayerNormBackward& args, int64_t begin, int64_t end);

#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device; the bits depend on nothing but the arguments.
[[nodiscard]] cudaError_t layer_norm_cuda(const LayerNorm& args, cudaStream_t stream);
[[nodiscard]] cudaError_t layer_norm_backward_cuda(const LayerNormBackward& args,
                                                   cudaStream_t stream);
#endif

}  // namespace lehr::kernels
