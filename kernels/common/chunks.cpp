// Compiled with -O3 like the kernels (CMakeLists.txt).
#include "kernels/common/chunks.h"

namespace lehr::kernels {

void sum_chunks(const float* partials, int64_t chunks, int64_t columns, float* sums) {
  // a part of the columns at a time, so that their sums stay in the first cache
  constexpr int64_t kPart = 1024;
  for (int64_t begin = 0; begin < columns; begin += kPart) {
    const int64_t count = std::min(kPart, columns - begin);
    std::fill(sums + begin, sums + begin + count, 0.0f);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const float* const partial = partials + chunk * columns + begin;
      for (int64_t c = 0; c < count; ++c) sums[begin + c] += partial[c];
    }
  }
}

}  // namespace lehr::kernels
