// Compiles LEHR_SIMD_BODY, a header's path, once per instruction set: in namespace `avx2` and in
// namespace `avx512`, each with vector_exp.h before it. The body holds plain functions and
// templates, no lambdas (to which the pragma does not reach). Included by *_cpu_simd.cpp files, at
// the top level, after their own includes; elsewhere than on x86-64 nothing is left.
#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // inside g++ 12's own avx512fintrin.h
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/common/rounding.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define LEHR_AVX512 0
namespace lehr::kernels {
namespace {
namespace avx2 {
#include "kernels/common/vector_exp.h"
#include LEHR_SIMD_BODY
}  // namespace avx2
}  // namespace
}  // namespace lehr::kernels
#undef LEHR_AVX512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,prefer-vector-width=512")
#define LEHR_AVX512 1
namespace lehr::kernels {
namespace {
namespace avx512 {
#include "kernels/common/vector_exp.h"
#include LEHR_SIMD_BODY
}  // namespace avx512
}  // namespace
}  // namespace lehr::kernels
#undef LEHR_AVX512
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif
