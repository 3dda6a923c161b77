// By vectors: the sum of a row's tokens stays in registers.
#include <algorithm>

#include "kernels/embedding/embedding.h"

#define LEHR_SIMD_BODY "kernels/embedding/embedding_simd.h"
#include "kernels/common/each_simd.h"

namespace lehr::kernels {

void embedding_cpu_simd(const Embedding& args, int64_t begin, int64_t end, Simd set) {
#if defined(__x86_64__)
  if (set == Simd::kAvx512) return avx512::look_up_rows(args, begin, end);
  if (set == Simd::kAvx2) return avx2::look_up_rows(args, begin, end);
#endif
  (void)set;
  embedding_cpu(args, begin, end);
}

void embedding_gradient_cpu_simd(const EmbeddingGradient& args, int64_t begin, int64_t end,
                                 Simd set) {
#if defined(__x86_64__)
  if (set == Simd::kAvx512) return avx512::add_up_rows(args, begin, end);
  if (set == Simd::kAvx2) return avx2::add_up_rows(args, begin, end);
#endif
  (void)set;
  embedding_gradient_cpu(args, begin, end);
}

}  // namespace lehr::kernels
