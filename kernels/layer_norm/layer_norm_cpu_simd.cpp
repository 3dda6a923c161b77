// The loops that the CPU op runs, at the machine's vector width.
#include "kernels/layer_norm/layer_norm.h"

#define LEHR_LOOPS "kernels/layer_norm/layer_norm_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void layer_norm_cpu_simd(const LayerNorm& args, int64_t begin, int64_t end) {
  LEHR_SIMD(forward(args, begin, end));
}

void layer_norm_backward_cpu_simd(const LayerNormBackward& args, int64_t begin, int64_t end) {
  LEHR_SIMD(backward(args, begin, end));
}

}  // namespace lehr::kernels
