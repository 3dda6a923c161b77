// The loops that the CPU op runs, at the machine's vector width.
#include "kernels/rope/rope.h"

#define LEHR_LOOPS "kernels/rope/rope_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void rope_cpu_simd(const Rope& args, int64_t begin, int64_t end) {
  LEHR_SIMD(turn(args, begin, end));
}

}  // namespace lehr::kernels
