// By vectors: everything that a step does to an element while it is in a register.
#include "kernels/adamw/adamw.h"

#define LEHR_LOOPS "kernels/adamw/adamw_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void adamw_squares_cpu_simd(const AdamW& args, int64_t begin, int64_t end) {
  LEHR_SIMD(squares(args, begin, end));
}

void adamw_update_cpu_simd(const AdamW& args, float factor, int64_t begin, int64_t end) {
  LEHR_SIMD(update(args, factor, begin, end));
}

}  // namespace lehr::kernels
