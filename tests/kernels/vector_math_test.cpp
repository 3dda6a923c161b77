// The vectors that CPU loops are made of (kernels/common/vector.inc), at every width that this
// machine has: exp to two units in the last place, conversions to the bits of their scalar twins.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/agreement.h"

#define LEHR_LOOPS "tests/kernels/vector_math_loops.inc"
#include "kernels/common/simd.h"

namespace lehr::kernels {
namespace {

void exp_of(const float* x, int64_t n, float* y) { LEHR_SIMD(exp_all(x, n, y)); }
template <class T>
void convert(const float* x, int64_t n, T* stored, float* back) {
  LEHR_SIMD(convert_all(x, n, stored, back));
}

// every 65521st float, and the neighbourhood of special ones
std::vector<float> many_floats() {
  std::vector<float> values;
  for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 65521) {
    const uint32_t word = static_cast<uint32_t>(bits);
    float value;
    std::memcpy(&value, &word, 4);
    values.push_back(value);
  }
  for (float x = -110; x < 95; x += 0.00390625f) values.push_back(x * 1.0001f);
  for (float x : {0.0f, 65504.0f, 65519.99f, 65520.0f, 0x1p-14f, 0x1p-24f, 0x1p-25f, 3.3895e38f})
    for (int step = -2; step <= 2; ++step) {
      values.push_back(std::nextafter(x, step < 0 ? -INFINITY : INFINITY) + 0 * x);
      values.push_back(-x);
      values.push_back(x);
    }
  return values;
}

TEST(VectorMath, ExpIsRightToTwoUnitsInTheLastPlace) {
  const std::vector<float> x = many_floats();
  std::vector<float> y(x.size());
  with_every_simd_level([&](const std::string& level) {
    exp_of(x.data(), static_cast<int64_t>(x.size()), y.data());
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) {
        ASSERT_TRUE(std::isnan(y[i])) << level;
        continue;
      }
      const double exact = std::exp(static_cast<double>(x[i]));
      const float nearest = static_cast<float>(exact);
      if (std::isinf(nearest)) {
        ASSERT_EQ(y[i], nearest) << x[i] << level;
        continue;
      }
      const double spacing = exact > 0 ? std::ldexp(1.0, std::ilogb(exact) - 23) : 0;
      const double unit = std::max(spacing, 0x1p-149);
      worst = std::max(worst, std::abs(y[i] - exact) / unit);
    }
    EXPECT_LE(worst, 2) << level;
  });
}

template <class T>
void expect_the_scalar_bits() {
  const std::vector<float> x = many_floats();
  with_every_simd_level([&](const std::string& level) {
    std::vector<T> stored(x.size());
    std::vector<float> back(x.size());
    convert(x.data(), static_cast<int64_t>(x.size()), stored.data(), back.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const float expected = widened(rounded<T>(x[i]));
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(back[i])) << level;
        continue;
      }
      ASSERT_EQ(stored[i].bits, rounded<T>(x[i]).bits) << x[i] << level;
      ASSERT_EQ(back[i], expected) << x[i] << level;
    }
  });
}

TEST(VectorMath, StoresAndLoadsTheBitsOfTheScalarConversions) {
  expect_the_scalar_bits<BFloat16>();
  expect_the_scalar_bits<Float16>();
}

TEST(VectorMath, WidensEveryHalfToAtensFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t word = static_cast<uint16_t>(bits);
    const float half = widened(Float16{word}), aten = c10::Half(word, c10::Half::from_bits());
    const float brain = widened(BFloat16{word});
    const float aten_brain = c10::BFloat16(word, c10::BFloat16::from_bits());
    ASSERT_TRUE(half == aten || (std::isnan(half) && std::isnan(aten))) << bits;
    ASSERT_TRUE(brain == aten_brain || (std::isnan(brain) && std::isnan(aten_brain))) << bits;
  }
}

}  // namespace
}  // namespace lehr::kernels
