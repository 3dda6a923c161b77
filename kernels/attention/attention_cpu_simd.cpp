// The loops that the CPU op runs, at the machine's vector width.
#include <memory>

#include "kernels/attention/attention.h"

#define LEHR_LOOPS "kernels/attention/attention_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void attention_cpu_simd(const Attention& args, int64_t begin, int64_t end) {
  LEHR_SIMD(forward(args, begin, end));
}

void attention_backward_cpu_simd(const AttentionBackward& args, int64_t begin, int64_t end) {
  LEHR_SIMD(backward(args, begin, end));
}

}  // namespace lehr::kernels
