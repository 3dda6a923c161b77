// The classifier of a language model: softmax cross-entropy of each row of logits and, in place,
// its gradient, with label smoothing and a penalty on the log of the partition function (z-loss).
// With lse = log sum exp(x) over the vocabulary and t the target of a row,
//   loss = (1 - s) (lse - x[t]) + s (lse - mean(x)) + z lse^2
//   d loss / d x[j] = softmax(x)[j] (1 + 2 z lse) - s / V - (1 - s) [j == t]
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// Bytes moved: rows x stride x element size, read once and, for the gradient, written once; 12 a
// row beside them. On CUDA a row too long for shared memory is read twice (the second time mostly
// from the L2 cache). `logits` needs the alignment of its element only; 16 bytes for it and for
// every row take the fast path. Nothing may overlap.
struct CrossEntropy {
  void* logits;            // [rows, stride] of `type`; overwritten if `gradient`
  const int64_t* targets;  // [rows]: in [0, vocabulary), or kIgnoredTarget
  float* losses;           // [rows], unscaled; 0 for an ignored row
  int64_t rows;            // 0 does nothing
  int64_t vocabulary;      // V >= 1
  int64_t stride;          // >= vocabulary; columns beyond it are padding: their gradient is 0
  float scale;             // the gradient is that of scale x sum of the losses
  float label_smoothing;   // s, in [0, 1]
  float z_loss;            // z
  bool gradient;           // false: the logits are only read
  Float type;
};

// A row with this target counts for nothing: loss 0, gradient 0. A row with any other target
// outside the vocabulary has a loss and a gradient of NaN, so that a step on a GPU, which cannot
// throw, is refused as not finite.
constexpr int64_t kIgnoredTarget = -100;

void cross_entropy_cpu(const CrossEntropy& args);
// The same by vectors, 1e-6 from it.
void cross_entropy_cpu_simd(const CrossEntropy& args);

// sum[i] += part[i], `part` of `type`: what the chunks' products with the logits' gradient become.
// (ATen's add of two dtypes converts element by element: 28 ms where this takes 4, for 50,257 x
// 384 on 2 cores of an AMD EPYC.)
void add_part_cpu(float* sum, const void* part, Float type, int64_t n);
void add_part_cpu_simd(float* sum, const void* part, Float type, int64_t n);
#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device.
[[nodiscard]] cudaError_t cross_entropy_cuda(const CrossEntropy& args, cudaStream_t stream);
#endif

}  // namespace lehr::kernels
