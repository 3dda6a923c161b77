#include "engine/data/order.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace lehr::data {
namespace {

bool is_bijection(uint64_t n, uint64_t seed, uint64_t epoch) {
  const Permutation order(n, seed, epoch);
  std::vector<bool> seen(n);
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t sample = order(i);
    if (sample >= n || seen[sample]) return false;
    seen[sample] = true;
  }
  return true;
}

std::vector<uint64_t> listed(uint64_t n, uint64_t seed, uint64_t epoch) {
  const Permutation order(n, seed, epoch);
  std::vector<uint64_t> list;
  for (uint64_t i = 0; i < n; ++i) list.push_back(order(i));
  return list;
}

TEST(Permutation, IsOneAtEverySize) {
  for (uint64_t n = 1; n <= 300; ++n)
    for (uint64_t epoch = 0; epoch < 3; ++epoch) EXPECT_TRUE(is_bijection(n, 7, epoch)) << n;
  // primes, powers of four and their neighbours
  for (uint64_t n : {1009, 4095, 4096, 4097, 65521, 65535, 65536, 65537, 104729})
    EXPECT_TRUE(is_bijection(n, 1, 2)) << n;
}

TEST(Permutation, IsOneOfTenMillion) { EXPECT_TRUE(is_bijection(10'000'000, 3, 4)); }

TEST(Permutation, DiffersBySeedAndEpochAndIsAFunctionOfThem) {
  EXPECT_EQ(listed(1000, 1, 2), listed(1000, 1, 2));
  EXPECT_NE(listed(1000, 1, 2), listed(1000, 1, 3));
  EXPECT_NE(listed(1000, 1, 2), listed(1000, 2, 2));
}

TEST(Permutation, TakesEveryOrderOfTwoAndThree) {
  std::set<std::vector<uint64_t>> two, three;
  for (uint64_t epoch = 0; epoch < 200; ++epoch) {
    two.insert(listed(2, 1, epoch));
    three.insert(listed(3, 1, epoch));
  }
  EXPECT_EQ(two.size(), 2u);
  EXPECT_EQ(three.size(), 6u);
}

TEST(Permutation, ShufflesEvenly) {
  // over many epochs each sample is at each position equally often: chi-square with 99 * 99 degrees
  constexpr int kSize = 100, kEpochs = 20000;
  std::vector<int> counts(kSize * kSize);
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const Permutation order(kSize, 5, epoch);
    for (int i = 0; i < kSize; ++i) ++counts[i * kSize + order(i)];
  }
  double chi = 0, expected = static_cast<double>(kEpochs) / kSize;
  for (int c : counts) chi += (c - expected) * (c - expected) / expected;
  const double degrees = 99.0 * 99.0, spread = std::sqrt(2 * degrees);
  EXPECT_LT(std::abs(chi - degrees), 5 * spread);
}

TEST(HeldOut, TakesTheFractionAndMovesNobodyWhenRowsAreAdded) {
  int64_t count = 0;
  for (uint64_t i = 0; i < 100000; ++i) count += held_out(i, 0.1, 0);
  EXPECT_NEAR(count, 10000, 300);
  int64_t moved = 0, alike = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    // a larger fraction only adds
    moved += held_out(i, 0.1, 0) && !held_out(i, 0.2, 0);
    alike += held_out(i, 0.1, 0) && held_out(i, 0.1, 1);
  }
  EXPECT_EQ(moved, 0);
  EXPECT_NEAR(alike, 100, 50);
  EXPECT_FALSE(held_out(5, 0, 0));
  EXPECT_TRUE(held_out(5, 1, 0));
}

}  // namespace
}  // namespace lehr::data
