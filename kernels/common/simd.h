// Compiles loops once per vector width and picks one at run time. A source defines LEHR_LOOPS as
// the path of its loops (an .inc file, which finds `Vec` and what vector.inc says of it) and
// includes this header once; then `LEHR_SIMD(call(...))` calls the widest one that the machine has.
// Results may differ between machines of different widths, never between threads.
#pragma once

#ifndef LEHR_LOOPS
#error "define LEHR_LOOPS as the path of the loops before including simd.h"
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/common/chunks.h"
#include "kernels/common/dtype.h"
#include "kernels/common/rounding.h"
#include "kernels/common/simd_level.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // inside g++ 12's own avx512fintrin.h
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lehr::kernels {
namespace {

// NOLINTBEGIN: the same text three times over is the point
namespace plain {
#define LEHR_VECTOR_BYTES 16
#include "kernels/common/vector.inc"
#include LEHR_LOOPS
#undef LEHR_VECTOR_BYTES
}  // namespace plain

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace avx2 {
#define LEHR_VECTOR_BYTES 32
#include "kernels/common/vector.inc"
#include LEHR_LOOPS
#undef LEHR_VECTOR_BYTES
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")
namespace avx512 {
#define LEHR_VECTOR_BYTES 64
#include "kernels/common/vector.inc"
#include LEHR_LOOPS
#undef LEHR_VECTOR_BYTES
}  // namespace avx512
#pragma GCC pop_options
#endif
// NOLINTEND

}  // namespace
}  // namespace lehr::kernels
#pragma GCC diagnostic pop

#if defined(__x86_64__)
#define LEHR_SIMD(call)        \
  do {                         \
    switch (simd_level()) {    \
      case SimdLevel::kAvx512: \
        return avx512::call;   \
      case SimdLevel::kAvx2:   \
        return avx2::call;     \
      case SimdLevel::kPlain:  \
        return plain::call;    \
    }                          \
  } while (false)
#else
#define LEHR_SIMD(call) return plain::call
#endif
