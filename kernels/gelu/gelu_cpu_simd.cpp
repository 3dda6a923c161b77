// The loops that the CPU op runs, at the machine's vector width.
#include "kernels/gelu/gelu.h"

#define LEHR_LOOPS "kernels/gelu/gelu_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void gelu_cpu_simd(const Gelu& args, int64_t begin, int64_t end) {
  LEHR_SIMD(forward(args, begin, end));
}

void gelu_backward_cpu_simd(const GeluBackward& args, int64_t begin, int64_t end) {
  LEHR_SIMD(backward(args, begin, end));
}

}  // namespace lehr::kernels
