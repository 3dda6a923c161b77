// kernels/common/vector_exp.h with every instruction set that this CPU has: exp against a double
// one, conversions against rounding.h bit by bit, partial loads inside exact buffers.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "kernels/common/instruction_sets.h"
#include "tests/cuda_host/buffer.h"

#define LEHR_SIMD_BODY "tests/kernels/vector_probe.h"
#include "kernels/common/each_simd.h"

#if defined(__x86_64__)
namespace lehr::kernels {
namespace {

// FUNCTION of the set's namespace
#define IN_SET(set, FUNCTION, ...)                           \
  do {                                                       \
    if (set == Simd::kAvx512) avx512::FUNCTION(__VA_ARGS__); \
    if (set == Simd::kAvx2) avx2::FUNCTION(__VA_ARGS__);     \
  } while (false)

class Vectors : public testing::TestWithParam<Simd> {
 protected:
  void SetUp() override {
    if (!supports(GetParam())) GTEST_SKIP() << "this CPU does not have it";
  }
};
INSTANTIATE_TEST_SUITE_P(Sets, Vectors, testing::Values(Simd::kAvx2, Simd::kAvx512),
                         [](const auto& info) {
                           return info.param == Simd::kAvx2 ? "avx2" : "avx512";
                         });

TEST_P(Vectors, ExpIsWithinTwoUnitsInTheLastPlace) {
  double worst = 0;
  float in[16], out[16];
  // every 997th float from 88 down to 0 and from 0 down to -87.3
  for (float end : {88.0f, -87.3f}) {
    const uint32_t sign = end < 0 ? 0x80000000u : 0;
    for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(std::fabs(end)) - 16 * 997;
         bits += 16 * 997) {
      for (uint32_t i = 0; i < 16; ++i) in[i] = std::bit_cast<float>((bits + i * 997) | sign);
      IN_SET(GetParam(), exponentials, in, out);
      for (int i = 0; i < 16; ++i) {
        const double exact = std::exp(static_cast<double>(in[i]));
        const double unit = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
        worst = std::max(worst, std::fabs(out[i] - exact) / unit);
      }
    }
  }
  EXPECT_LT(worst, 2);
  EXPECT_GT(worst, 0.5);  // or nothing was compared
}

TEST_P(Vectors, ExpTakesTheEndsOfItsRange) {
  const float inf = std::numeric_limits<float>::infinity();
  float in[16] = {0, -0.0f, -inf, -1e30f, -88, -87.31f, std::nanf(""), 88}, out[16];
  IN_SET(GetParam(), exponentials, in, out);
  EXPECT_EQ(out[0], 1);
  EXPECT_EQ(out[1], 1);
  for (int i = 2; i <= 5; ++i) EXPECT_EQ(out[i], 0) << in[i];
  EXPECT_TRUE(std::isnan(out[6]));
  EXPECT_NEAR(out[7] / 1.6516363e38f, 1, 1e-6);
}

template <class T>
void expect_conversions(Simd set) {
  T halves[16], rounded_halves[16];
  float floats[16];
  for (uint32_t first = 0; first < 65536; first += 16) {
    for (uint32_t i = 0; i < 16; ++i) halves[i].bits = static_cast<uint16_t>(first + i);
    IN_SET(set, widen_all, halves, floats);
    for (int i = 0; i < 16; ++i) {
      const float expected = widened(halves[i]);
      if (std::isnan(expected))
        EXPECT_TRUE(std::isnan(floats[i]));
      else
        EXPECT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(expected));
    }
    // between two neighbours: just below, at and just above the middle
    for (uint32_t low : {0u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      for (int i = 0; i < 16; ++i)
        floats[i] = std::bit_cast<float>((first + static_cast<uint32_t>(i)) << 16 | low);
      IN_SET(set, round_all, floats, rounded_halves);
      for (int i = 0; i < 16; ++i) {
        if (std::isnan(floats[i]))
          EXPECT_TRUE(std::isnan(widened(rounded_halves[i])));
        else
          EXPECT_EQ(rounded_halves[i].bits, rounded<T>(floats[i]).bits) << floats[i];
      }
    }
  }
}

TEST_P(Vectors, ConvertsAsTheOraclesDo) {
  expect_conversions<BFloat16>(GetParam());
  expect_conversions<Float16>(GetParam());
}

template <class T>
void expect_parts(Simd set, T value) {
  for (int64_t n = 0; n <= 15; ++n) {
    cuda_host::Buffer<T> in(std::vector<T>(static_cast<size_t>(n), value)), out(in.values());
    std::memset(static_cast<void*>(out.data()), 0, static_cast<size_t>(n) * sizeof(T));
    IN_SET(set, copy_some, in.data(), out.data(), n);
    EXPECT_EQ(n ? std::memcmp(in.data(), out.data(), static_cast<size_t>(n) * sizeof(T)) : 0, 0);
  }
}

TEST_P(Vectors, ReadsAndWritesNothingBeyondAPart) {
  expect_parts<float>(GetParam(), 1.5f);
  expect_parts<BFloat16>(GetParam(), {0x3fc0});
  expect_parts<Float16>(GetParam(), {0x3e00});
}

TEST_P(Vectors, SumsInTheOrderThatEverySetHas) {
  float in[16];
  for (int i = 0; i < 16; ++i) in[i] = std::ldexp(1.1f, i % 7 * 5);
  float expected[8];
  for (int i = 0; i < 8; ++i) expected[i] = in[i] + in[i + 8];
  for (int width = 4; width >= 1; width /= 2)
    for (int i = 0; i < width; ++i) expected[i] += expected[i + width];
  float sum = 0, largest = 0;
  if (GetParam() == Simd::kAvx512) sum = avx512::sum_all(in), largest = avx512::largest_of(in);
  if (GetParam() == Simd::kAvx2) sum = avx2::sum_all(in), largest = avx2::largest_of(in);
  EXPECT_EQ(sum, expected[0]);
  EXPECT_EQ(largest, in[6]);
}

}  // namespace
}  // namespace lehr::kernels
#endif
