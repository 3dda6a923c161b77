// Weights and biases that may be stored wider than the activations: float32, or the activations'
// own type. A pack of them comes back as floats.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "kernels/common/cast.h"
#include "kernels/common/pack.h"

namespace lehr::kernels {

// floats move in packs of at most 16 bytes
template <int kWidth>
constexpr int kFloatWidth = kWidth < 4 ? kWidth : 4;

template <int kWidth>
__device__ inline void load_floats(const float* array, int64_t pack, float (&values)[kWidth]) {
  constexpr int kPart = kFloatWidth<kWidth>;
#pragma unroll
  for (int part = 0; part < kWidth / kPart; ++part) {
    const auto in = load_pack<kPart>(array, pack * (kWidth / kPart) + part);
#pragma unroll
    for (int i = 0; i < kPart; ++i) values[part * kPart + i] = in[i];
  }
}

template <int kWidth>
__device__ inline void store_floats(float* array, int64_t pack, const float (&values)[kWidth]) {
  constexpr int kPart = kFloatWidth<kWidth>;
#pragma unroll
  for (int part = 0; part < kWidth / kPart; ++part) {
    Pack<float, kPart> out;
#pragma unroll
    for (int i = 0; i < kPart; ++i) out[i] = values[part * kPart + i];
    store_pack(array, pack * (kWidth / kPart) + part, out);
  }
}

// the pack-th kWidth elements of an array of T, or of floats when `wide`
template <class T, int kWidth>
__device__ inline void load_parameters(const void* array, bool wide, int64_t pack,
                                       float (&values)[kWidth]) {
  if (wide) {
    load_floats(static_cast<const float*>(array), pack, values);
  } else {
    const auto in = load_pack<kWidth>(static_cast<const T*>(array), pack);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] = to_float(in[i]);
  }
}

// Whether rows of `columns` elements of T are whole packs that begin at multiples of 16 bytes in
// every array (nullptr: none).
template <class T>
bool rows_of_packs(int64_t columns, std::initializer_list<const void*> arrays) {
  return columns % (kPackBytes / int64_t{sizeof(T)}) == 0 &&
         std::all_of(arrays.begin(), arrays.end(),
                     [](const void* array) { return aligned(array, kPackBytes); });
}

}  // namespace lehr::kernels
