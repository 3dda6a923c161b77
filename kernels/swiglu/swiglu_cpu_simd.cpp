// The loops that the CPU op runs, at the machine's vector width.
#include "kernels/swiglu/swiglu.h"

#define LEHR_LOOPS "kernels/swiglu/swiglu_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void swiglu_cpu_simd(const SwiGlu& args, int64_t begin, int64_t end) {
  LEHR_SIMD(forward(args, begin, end));
}

void swiglu_backward_cpu_simd(const SwiGluBackward& args, int64_t begin, int64_t end) {
  LEHR_SIMD(backward(args, begin, end));
}

}  // namespace lehr::kernels
