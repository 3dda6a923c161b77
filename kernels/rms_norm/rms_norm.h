// RMS norm over the last dimension (Zhang and Sennrich 2019), alone or fused with the residual
// addition before it: sum = x + residual (rounded to `type`), then output = sum * rstd * weight
// with rstd = 1 / sqrt(mean(sum^2) + eps).
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// Bytes moved: rows x columns x 2 sizes of `type` (4 with a residual); a row's second look hits the
// caches. `output` and `sum` may not overlap anything else. Pointers need the alignment of their
// element; 16 bytes for all, and whole packs in a row, take the fast path.
struct RmsNorm {
  const void* x;         // [rows, columns] of `type`
  const void* residual;  // the same, or nullptr: nothing is added and `sum` is not written
  const void* weight;    // [columns] of `parameter_type`
  void* output;          // [rows, columns] of `type`
  void* sum;             // the same; what the backward takes as its x
  float* rstd;           // [rows]
  int64_t rows;          // 0 does nothing
  int64_t columns;       // >= 1
  float eps;
  Float type, parameter_type;  // parameter_type is kFloat32 or `type`
};

// grad_x = rstd * (g w - x_hat * mean(g w x_hat)) + grad_sum, the gradient of x and of the residual
// alike; the gradient of weight is the sum over the rows of g x_hat. Bytes moved: rows x columns x
// 3 sizes of `type` (4 with grad_sum), and the partial sums twice.
struct RmsNormBackward {
  const void* grad;      // [rows, columns] of `type`: of the output
  const void* grad_sum;  // the same: what else flows into the sum; or nullptr
  const void* x;         // the same: what was normalised
  const void* weight;    // [columns] of `parameter_type`
  const float* rstd;     // [rows], from the forward
  void* grad_x;          // [rows, columns] of `type`; may be grad_sum itself
  float* partials;       // scratch [chunks, columns]
  float* grad_weight;    // [columns]; 0 where there are no rows
  int64_t rows, columns;
  int64_t chunks;  // cpu_row_chunks or cuda_row_chunks of common/chunks.h; 0 for no rows
  Float type, parameter_type;
};

// The oracles: the sums in double.
void rms_norm_cpu(const RmsNorm& args);
void rms_norm_backward_cpu(const RmsNormBackward& args);

// What the op runs: rows [begin, end), and chunks [begin, end) of the backward's first stage.
void rms_norm_cpu_simd(const RmsNorm& args, int64_t begin, int64_t end);
void rms_norm_backward_cpu_simd(const RmsNormBackward& args, int64_t begin, int64_t end);

#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device; the bits depend on nothing but the arguments.
[[nodiscard]] cudaError_t rms_norm_cuda(const RmsNorm& args, cudaStream_t stream);
[[nodiscard]] cudaError_t rms_norm_backward_cuda(const RmsNormBackward& args, cudaStream_t stream);
#endif

}  // namespace lehr::kernels
