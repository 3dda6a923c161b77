// By vectors: the sum of a row's tokens stays in registers.
#include "kernels/embedding/embedding.h"

#define LEHR_LOOPS "kernels/embedding/embedding_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {

void embedding_cpu_simd(const Embedding& args, int64_t begin, int64_t end) {
  LEHR_SIMD(look_up_rows(args, begin, end));
}

void embedding_gradient_cpu_simd(const EmbeddingGradient& args, int64_t begin, int64_t end) {
  LEHR_SIMD(add_up_rows(args, begin, end));
}

}  // namespace lehr::kernels
