// SwiGLU (Shazeer 2020) on the packed output of one linear layer: gate | up in a row, output =
// silu(gate) * up with silu(g) = g / (1 + e^-g).
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// Bytes moved: rows x columns x 3 sizes of `type`. Nothing may overlap the output. Pointers need
// the alignment of their element; 16 bytes for all, and whole packs in `columns`, take the fast
// path.
struct SwiGlu {
  const void* gate_up;    // [rows, 2, columns] of `type`
  void* output;           // [rows, columns] of `type`
  int64_t rows, columns;  // 0 does nothing
  Float type;
};

// grad_gate = grad up s (1 + g (1 - s)) and grad_up = grad g s, with s = 1 / (1 + e^-g). Bytes
// moved: rows x columns x 5 sizes of `type`. grad_gate_up may be gate_up itself.
struct SwiGluBackward {
  const void* grad;     // [rows, columns] of `type`
  const void* gate_up;  // [rows, 2, columns] of `type`
  void* grad_gate_up;   // the same
  int64_t rows, columns;
  Float type;
};

// The oracles, in double.
void swiglu_cpu(const SwiGlu& args);
void swiglu_backward_cpu(const SwiGluBackward& args);

// What the op runs: rows [begin, end).
void swiglu_cpu_simd(const SwiGlu& args, int64_t begin, int64_t end);
void swiglu_backward_cpu_simd(const SwiGluBackward& args, int64_t begin, int64_t end);

#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device.
[[nodiscard]] cudaError_t swiglu_cuda(const SwiGlu& args, cudaStream_t stream);
[[nodiscard]] cudaError_t swiglu_backward_cuda(const SwiGluBackward& args, cudaStream_t stream);
#endif

}  // namespace lehr::kernels
