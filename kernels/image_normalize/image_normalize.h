// uint8 images to normalised floats: output[p, c] = input[p, c] * scale[c] + shift[c], where p
// walks N x H x W and c is innermost in both (channels-last). Computed in float with two roundings
// (no fused multiply-add), then rounded once to the output's type, so that CPU, ATen and GPU give
// the same bits.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#ifdef LEHR_CUDA
#include <cuda_runtime.h>
#endif

namespace lehr::kernels {

// Bytes moved: pixels x channels x (1 + output size); scale and shift stay in the caches.
// Nothing may overlap the output. `input` and `output` need the alignment of their element only;
// 16 bytes for `output` and 4 (float32) or 8 for `input` take the fast path.
struct ImageNormalize {
  const uint8_t* input;  // [pixels, channels]
  void* output;          // [pixels, channels] of `type`
  const float* scale;    // [channels], where the kernel runs
  const float* shift;    // [channels]
  int64_t pixels;        // N x H x W; 0 does nothing
  int32_t channels;      // >= 1
  Float type;
};

void image_normalize_cpu(const ImageNormalize& args);
#ifdef LEHR_CUDA
// Asynchronous on `stream`, on the current device.
[[nodiscard]] cudaError_t image_normalize_cuda(const ImageNormalize& args, cudaStream_t stream);
#endif

}  // namespace lehr::kernels
