// One step of AdamW for a whole model, whatever its number of tensors: a pass over the gradients
// for their global norm, then one over everything that unscales, clips by that norm, decays,
// updates, and on the way writes the 16-bit copy of a weight and its moving average. Where the norm
// is not finite nothing moves. Loshchilov & Hutter, arXiv:1711.05101; rounded as written here,
// without fused multiply-adds, so that CPU and GPU give the same bits from the same norm:
//   g = gradient * factor                       factor = 1 / (divide * max(1, (norm + 1e-6) /
//   max_norm)) p = p * decay                               decay = 1 - lr * weight_decay m = m + (g
//   - m) * (1 - beta1) v = v * beta2 + (g * g) * (1 - beta2) p = p - (m * step_size) / (sqrt(v) /
//   root + eps)
//                                               step_size = lr / (1 - beta1^t), root = sqrt(1 -
//                                               beta2^t)
//   average = average + (p - average) * (1 - ema_decay)
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// Elements that one block, or one task of a CPU, works on at a time; a tensor's last chunk is
// shorter. 64 KiB of each array: they fit a core's second cache together.
constexpr int64_t kAdamWChunk = 16384;

// One row of the table of tensors.
struct AdamWTensor {
  float* parameter;      // [count], the master weights
  const void* gradient;  // [count] of gradient_type
  float* exp_avg;        // [count]
  float* exp_avg_sq;     // [count]
  void* copy;            // [count] of copy_type, or nullptr
  float* average;        // [count], or nullptr
  int64_t count;
  int64_t first_chunk;     // chunks of the tensors before it
  float decay, step_size;  // see above
  Float gradient_type, copy_type;
  bool wide;  // every pointer is aligned to four of its elements
};

// Bytes moved per element: its gradient once for the norm; once more, and 24 of weights and state,
// for the update; + 2 for the copy, + 8 for the average. Nothing may overlap.
struct AdamW {
  const AdamWTensor* tensors;  // [tensor_count], where the kernel runs; first_chunk ascends
  int64_t tensor_count;
  int64_t chunks;    // 0 does nothing
  double* partials;  // [chunks], where the kernel runs: sums of squares; scratch
  double* norm;      // where the kernel runs: of gradient / divide, before clipping; written
  float one_minus_beta1, beta2, one_minus_beta2, root, eps, one_minus_ema;
  double divide;    // what the gradients were multiplied by
  double max_norm;  // infinity: no clipping
  double known;     // the norm, if has_norm: the first pass is left out
  bool has_norm;
};

// The two passes over chunks [begin, end), so that threads can share them. The second needs
// `factor`, from adamw_factor; partials are summed in order by adamw_norm.
void adamw_squares_cpu(const AdamW& args, int64_t begin, int64_t end);
void adamw_update_cpu(const AdamW& args, float factor, int64_t begin, int64_t end);
// Elements [begin, end) of one tensor.
void adamw_elements_cpu(const AdamW& args, const AdamWTensor& tensor, float factor, int64_t begin,
                        int64_t end);
double adamw_norm(const AdamW& args);
float adamw_factor(const AdamW& args, double norm);
// The chunk's tensor.
int64_t adamw_tensor_of(const AdamW& args, int64_t chunk);
// The same by vectors, the update with the same bits.
void adamw_squares_cpu_simd(const AdamW& args, int64_t begin, int64_t end);
void adamw_update_cpu_simd(const AdamW& args, float factor, int64_t begin, int64_t end);

#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device: adamw_cuda launches twice, once with has_norm;
// global_norm_cuda reads of the table only gradients, and writes partials and norm.
[[nodiscard]] cudaError_t adamw_cuda(const AdamW& args, cudaStream_t stream);
[[nodiscard]] cudaError_t global_norm_cuda(const AdamW& args, cudaStream_t stream);
#endif

}  // namespace lehr::kernels
