// By vectors: everything that a step does to an element while it is in a register.
#include "kernels/adamw/adamw.h"

#define LEHR_SIMD_BODY "kernels/adamw/adamw_simd.h"
#include "kernels/common/each_simd.h"

namespace lehr::kernels {

void adamw_squares_cpu_simd(const AdamW& args, int64_t begin, int64_t end, Simd set) {
#if defined(__x86_64__)
  if (set == Simd::kAvx512) return avx512::squares(args, begin, end);
  if (set == Simd::kAvx2) return avx2::squares(args, begin, end);
#endif
  (void)set;
  adamw_squares_cpu(args, begin, end);
}

void adamw_update_cpu_simd(const AdamW& args, float factor, int64_t begin, int64_t end, Simd set) {
#if defined(__x86_64__)
  if (set == Simd::kAvx512) return avx512::update(args, factor, begin, end);
  if (set == Simd::kAvx2) return avx2::update(args, factor, begin, end);
#endif
  (void)set;
  adamw_update_cpu(args, factor, begin, end);
}

}  // namespace lehr::kernels
