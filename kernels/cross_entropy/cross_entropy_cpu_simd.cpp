// By vectors: several times faster than ATen's log-softmax and its backward, and in place.
#include <limits>

#include "kernels/cross_entropy/cross_entropy.h"

#define LEHR_SIMD_BODY "kernels/cross_entropy/cross_entropy_simd.h"
#include "kernels/common/each_simd.h"

namespace lehr::kernels {

void cross_entropy_cpu_simd(const CrossEntropy& args, Simd set) {
#if defined(__x86_64__)
  if (set == Simd::kAvx512) return avx512::rows(args);
  if (set == Simd::kAvx2) return avx2::rows(args);
#endif
  (void)set;
  cross_entropy_cpu(args);
}

void add_part_cpu_simd(float* sum, const void* part, Float type, int64_t n, Simd set) {
#if defined(__x86_64__)
  if (set == Simd::kAvx512) return avx512::add_part(sum, part, type, n);
  if (set == Simd::kAvx2) return avx2::add_part(sum, part, type, n);
#endif
  (void)set;
  add_part_cpu(sum, part, type, n);
}

}  // namespace lehr::kernels
