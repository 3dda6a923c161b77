// The loops that the CPU op runs, at the machine's vector width.
#include "kernels/rms_norm/rms_norm.h"

#define LEHR_LOOPS "kernels/rms_norm/rms_norm_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void rms_norm_cpu_simd(const RmsNorm& args, int64_t begin, int64_t end) {
  LEHR_SIMD(forward(args, begin, end));
}

void rms_norm_backward_cpu_simd(const RmsNormBackward& args, int64_t begin, int64_t end) {
  LEHR_SIMD(backward(args, begin, end));
}

}  // namespace lehr::kernels
