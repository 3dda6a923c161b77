// By vectors: several times faster than ATen's log-softmax and its backward, and in place.
#include "kernels/cross_entropy/cross_entropy.h"

#define LEHR_LOOPS "kernels/cross_entropy/cross_entropy_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void cross_entropy_cpu_simd(const CrossEntropy& args) { LEHR_SIMD(rows(args)); }

void add_part_cpu_simd(float* sum, const void* part, Float type, int64_t n) {
  LEHR_SIMD(add_part(sum, part, type, n));
}

}  // namespace lehr::kernels
