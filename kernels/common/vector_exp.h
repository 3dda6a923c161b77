// Sixteen floats at a time: loads and stores of every float type, arithmetic, sums in a fixed
// order, and exp. No #pragma once: each_simd.h includes it once per instruction set, inside a
// namespace of its own, with LEHR_AVX512 as 0 (two registers of eight) or 1 (one of sixteen).

#if LEHR_AVX512
struct Floats {
  __m512 all;
};
using Lanes = __mmask16;  // a bit per float

inline Floats fill(float value) { return {_mm512_set1_ps(value)}; }
inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Floats load(const BFloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline Floats load(const Float16* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store(float* p, Floats v) { _mm512_storeu_ps(p, v.all); }
inline void store(Float16* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v.all, 0));
}
// to nearest even, as kernels/common/rounding.h
inline void store(BFloat16* p, Floats v) {
  const __m512i bits = _mm512_castps_si512(v.all);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  up = _mm512_srli_epi32(up, 16);
  up = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(v.all, v.all, _CMP_UNORD_Q),
                             _mm512_set1_epi32(0x7fff));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(up));
}

inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.all, b.all)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.all, b.all)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.all, b.all)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.all, b.all)}; }
inline Floats square_root(Floats a) { return {_mm512_sqrt_ps(a.all)}; }
inline Floats larger(Floats a, Floats b) { return {_mm512_max_ps(a.all, b.all)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm512_fmadd_ps(a.all, b.all, c.all)};
}
inline Floats nearest(Floats a) { return {_mm512_roundscale_ps(a.all, _MM_FROUND_TO_NEAREST_INT)}; }
// 2^n for whole numbers n in [-126, 127]
inline Floats power_of_two(Floats n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.all), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
// `value` where not a < b, else 0
inline Floats zero_where_less(Floats value, Floats a, Floats b) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.all, b.all, _CMP_NLT_UQ), value.all)};
}

inline Lanes first_lanes(int64_t n) { return static_cast<Lanes>((1u << n) - 1); }
inline Floats choose(Lanes lanes, Floats a, Floats b) {
  return {_mm512_mask_mov_ps(b.all, lanes, a.all)};
}
inline Floats load_some(const float* p, Lanes lanes, int64_t) {
  return {_mm512_maskz_loadu_ps(lanes, p)};
}
inline void store_some(float* p, Floats v, Lanes lanes, int64_t) {
  _mm512_mask_storeu_ps(p, lanes, v.all);
}

inline __m256 lower_half(Floats v) { return _mm512_castps512_ps256(v.all); }
inline __m256 upper_half(Floats v) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v.all), 1));
}
#else
struct Floats {
  __m256 low, high;
};
struct Lanes {
  __m256i low, high;
};

inline Floats fill(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline __m256 widen(const BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Floats load(const BFloat16* p) { return {widen(p), widen(p + 8)}; }
inline __m256 widen(const Float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Floats load(const Float16* p) { return {widen(p), widen(p + 8)}; }
inline void store(float* p, Floats v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
inline void store(Float16* p, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.low, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.high, 0));
}
// to nearest even, as kernels/common/rounding.h
inline __m256i to_bfloat16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7fff), nan);
}
inline void store(BFloat16* p, Floats v) {
  // packs within halves of 128 bits, then puts the quarters in order
  const __m256i packed = _mm256_packus_epi32(to_bfloat16(v.low), to_bfloat16(v.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

inline Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Floats operator/(Floats a, Floats b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline Floats square_root(Floats a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
inline Floats larger(Floats a, Floats b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats nearest(Floats a) {
  constexpr int kHow = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, kHow), _mm256_round_ps(a.high, kHow)};
}
inline __m256 power_of_two(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
// 2^n for whole numbers n in [-126, 127]
inline Floats power_of_two(Floats n) { return {power_of_two(n.low), power_of_two(n.high)}; }
// `value` where not a < b, else 0
inline Floats zero_where_less(Floats value, Floats a, Floats b) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.low, b.low, _CMP_NLT_UQ), value.low),
          _mm256_and_ps(_mm256_cmp_ps(a.high, b.high, _CMP_NLT_UQ), value.high)};
}

inline Lanes first_lanes(int64_t n) {
  const __m256i count = _mm256_set1_epi32(static_cast<int>(n));
  return {_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
          _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}
inline Floats choose(Lanes lanes, Floats a, Floats b) {
  return {_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(lanes.low)),
          _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(lanes.high))};
}
inline Floats load_some(const float* p, Lanes lanes, int64_t) {
  return {_mm256_maskload_ps(p, lanes.low), _mm256_maskload_ps(p + 8, lanes.high)};
}
inline void store_some(float* p, Floats v, Lanes lanes, int64_t) {
  _mm256_maskstore_ps(p, lanes.low, v.low);
  _mm256_maskstore_ps(p + 8, lanes.high, v.high);
}

inline __m256 lower_half(Floats v) { return v.low; }
inline __m256 upper_half(Floats v) { return v.high; }
#endif

// the first n of sixteen, the others read as 0; 16-bit types have no masked access before AVX-512BW
template <class T>
inline Floats load_some(const T* p, Lanes, int64_t n) {
  T part[16] = {};
  std::memcpy(part, p, static_cast<size_t>(n) * sizeof(T));
  return load(part);
}
template <class T>
inline void store_some(T* p, Floats v, Lanes, int64_t n) {
  T part[16];
  store(part, v);
  std::memcpy(p, part, static_cast<size_t>(n) * sizeof(T));
}

// lane i with i + 8, then + 4, + 2, + 1
inline float sum(Floats v) {
  const __m256 eight = _mm256_add_ps(lower_half(v), upper_half(v));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline float largest(Floats v) {
  const __m256 eight = _mm256_max_ps(lower_half(v), upper_half(v));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Sum of squares in double, one accumulator per lane of the lower and of the upper half.
struct Squares {
  __m256d parts[4];
};
inline Squares no_squares() {
  const __m256d zero = _mm256_setzero_pd();
  return {{zero, zero, zero, zero}};
}
inline void add_squares(Squares* sums, Floats v) {
  const __m256 halves[2] = {lower_half(v), upper_half(v)};
  for (int i = 0; i < 2; ++i) {
    const __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(halves[i]));
    const __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(halves[i], 1));
    // the square of a float is exact in double, so fused or not the bits are the same
    sums->parts[2 * i] = _mm256_fmadd_pd(a, a, sums->parts[2 * i]);
    sums->parts[2 * i + 1] = _mm256_fmadd_pd(b, b, sums->parts[2 * i + 1]);
  }
}
inline double sum(const Squares& s) {
  const __m256d four =
      _mm256_add_pd(_mm256_add_pd(s.parts[0], s.parts[1]), _mm256_add_pd(s.parts[2], s.parts[3]));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

// e^x for x <= 88, within 2 units in the last place; 0 below -87.3, where a float has lost digits;
// NaN stays. e^x = 2^n e^r with |r| <= ln(2)/2, and e^r = 1 + r + r^2 q(r), where q is the minimax
// polynomial of degree 4 (relative error 3e-9, a twentieth of a rounding).
inline Floats exp(Floats x) {
  const Floats n = nearest(x * fill(0x1.715476p0f));
  Floats r = multiply_add(n, fill(-0x1.62e4p-1f), x);  // the high digits of ln 2: exact
  r = multiply_add(n, fill(-0x1.7f7d1cp-20f), r);
  Floats q = multiply_add(r, fill(0x1.6a2308p-10f), fill(0x1.123a66p-7f));
  q = multiply_add(q, r, fill(0x1.5558f6p-5f));
  q = multiply_add(q, r, fill(0x1.55549p-3f));
  q = multiply_add(q, r, fill(0x1.fffffcp-2f));
  const Floats result = (multiply_add(r * r, q, r) + fill(1.0f)) * power_of_two(n);
  return zero_where_less(result, x, fill(-87.3f));
}
