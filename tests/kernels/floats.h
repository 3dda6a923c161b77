// What tests of float kernels share: random numbers in any storage type, and closeness. No
// LibTorch, so that the host builds read it too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/common/dtype.h"
#include "kernels/common/rounding.h"

namespace lehr::kernels {

inline std::vector<Float> all_float_types() {
  return {Float::kFloat32, Float::kBFloat16, Float::kFloat16};
}
inline std::string name_of(Float type) {
  return type == Float::kFloat32 ? "float32" : type == Float::kBFloat16 ? "bfloat16" : "float16";
}

// |actual - expected| <= relative |expected| + absolute `scale`; NaN and infinities are themselves.
struct Tolerance {
  double absolute, relative;
  bool allows(double actual, double expected, double scale = 1) const {
    if (actual == expected || (std::isnan(actual) && std::isnan(expected))) return true;
    return std::isfinite(expected) &&
           std::abs(actual - expected) <= relative * std::abs(expected) + absolute * scale;
  }
};

// What one rounding to the storage type costs (half a unit in the last place), and what computing
// in float with sums of a few thousand terms costs.
inline Tolerance rounding_tolerance(Float type) {
  switch (type) {
    case Float::kFloat32:
      return {2e-6, 2e-6};
    case Float::kBFloat16:
      return {1e-5, 0x1.02p-8};
    case Float::kFloat16:
      return {1e-5, 0x1.02p-11};
  }
  return {0, 0};
}

// where the expected numbers were rounded as well: near a tie, a whole unit
inline Tolerance both_rounded_tolerance(Float type) {
  const Tolerance one = rounding_tolerance(type);
  return {one.absolute, 2 * one.relative};
}

// roughly normal numbers, the same for the same seed
inline std::vector<float> random_floats(int64_t count, uint64_t seed, float mean = 0,
                                        float deviation = 1) {
  std::vector<float> values(static_cast<size_t>(count));
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (float& value : values) {
    double sum = 0;
    for (int i = 0; i < 6; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += static_cast<double>(state >> 40) * 0x1p-24;
    }
    value = mean + deviation * static_cast<float>((sum - 3) * 1.41421356);
  }
  return values;
}

// numbers as the bytes of a storage type, and back
inline std::vector<uint8_t> packed(const std::vector<float>& values, Float type) {
  std::vector<uint8_t> bytes(values.size() * bytes_of(type));
  for (size_t i = 0; i < values.size(); ++i) {
    const BFloat16 b = rounded<BFloat16>(values[i]);
    const Float16 h = rounded<Float16>(values[i]);
    if (type == Float::kFloat32) std::memcpy(&bytes[4 * i], &values[i], 4);
    if (type == Float::kBFloat16) std::memcpy(&bytes[2 * i], &b, 2);
    if (type == Float::kFloat16) std::memcpy(&bytes[2 * i], &h, 2);
  }
  return bytes;
}
inline std::vector<float> unpacked(const std::vector<uint8_t>& bytes, Float type) {
  std::vector<float> values(bytes.size() / bytes_of(type));
  for (size_t i = 0; i < values.size(); ++i) {
    BFloat16 b{};
    Float16 h{};
    if (type == Float::kFloat32) std::memcpy(&values[i], &bytes[4 * i], 4);
    if (type == Float::kBFloat16) {
      std::memcpy(&b, &bytes[2 * i], 2);
      values[i] = widened(b);
    }
    if (type == Float::kFloat16) {
      std::memcpy(&h, &bytes[2 * i], 2);
      values[i] = widened(h);
    }
  }
  return values;
}

// "" when close everywhere, at the scale of the largest number expected, or of 1; else the first
// place that is not.
template <class A, class B>
std::string difference(const A& actual, const B& expected, Tolerance tolerance) {
  if (actual.size() != expected.size())
    return std::to_string(actual.size()) + " elements for " + std::to_string(expected.size());
  double largest = 1;
  for (double e : expected)
    if (std::isfinite(e)) largest = std::max(largest, std::abs(e));
  for (size_t i = 0; i < actual.size(); ++i) {
    const double a = actual[i], e = expected[i];
    if (!tolerance.allows(a, e, largest))
      return "element " + std::to_string(i) + " is " + std::to_string(a) + ", not " +
             std::to_string(e) + " (off by " + std::to_string(a - e) + ")";
  }
  return "";
}

}  // namespace lehr::kernels
