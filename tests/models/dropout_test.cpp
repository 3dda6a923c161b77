#include "engine/base/error.h"
#include "tests/models/toy.h"

namespace lehr::models {
namespace {

using namespace testing;

at::Tensor mask_of(int64_t step, int64_t first, int64_t count, int64_t layer = 0, uint64_t seed = 3,
                   double p = 0.3, int64_t row = 37) {
  Keyed keyed(step, first, count, seed);
  return dropout(at::ones({count, row}), p, layer, true).gt(0);
}

TEST(Dropout, IsIndependentOfMicroBatches) {
  const auto whole = mask_of(5, 10, 12);
  const auto parts = at::cat({mask_of(5, 10, 5), mask_of(5, 15, 1), mask_of(5, 16, 6)});
  EXPECT_TRUE(whole.equal(parts));
}

TEST(Dropout, DrawsAnewForEachSeedStepLayerAndSample) {
  const auto mask = mask_of(5, 10, 1);
  EXPECT_TRUE(mask.equal(mask_of(5, 10, 1)));
  EXPECT_FALSE(mask.equal(mask_of(6, 10, 1)));
  EXPECT_FALSE(mask.equal(mask_of(5, 11, 1)));
  EXPECT_FALSE(mask.equal(mask_of(5, 10, 1, 1)));
  EXPECT_FALSE(mask.equal(mask_of(5, 10, 1, 0, 4)));
}

TEST(Dropout, KeepsTheShareAndTheMean) {
  for (const double p : {0.1, 0.5, 0.9}) {
    Keyed keyed(1, 0, 1000);
    const auto y = dropout(at::ones({1000, 200}), p, 0, true);
    const double kept = y.gt(0).to(at::kDouble).mean().item<double>();
    const double sigma = std::sqrt(p * (1 - p) / 200000);
    EXPECT_NEAR(kept, 1 - p, 4 * sigma);
    EXPECT_NEAR(y.mean().item<double>(), 1, 4 * sigma / (1 - p));
    EXPECT_NEAR(y.max().item<double>(), 1 / (1 - p), 1e-3);
    // neighbours within a sample and in the next one are not correlated
    const auto z = y.gt(0).to(at::kDouble) - kept;
    const double variance = p * (1 - p), limit = 4 / std::sqrt(199000.0);
    EXPECT_LT(std::abs((z.slice(1, 1) * z.slice(1, 0, 199)).mean().item<double>()) / variance,
              limit);
    EXPECT_LT(std::abs((z.slice(0, 1) * z.slice(0, 0, 999)).mean().item<double>()) / variance,
              limit);
  }
}

TEST(Dropout, PassesGradientsThroughItsMaskOnly) {
  auto x = at::randn({6, 33}).requires_grad_(true);
  Keyed keyed(2, 0, 6);
  const auto y = dropout(x, 0.25, 0, true);
  y.sum().backward();
  EXPECT_LT(largest_difference(x.grad() * x, y), 1e-6);
  EXPECT_GT(x.grad().eq(0).sum().item<int64_t>(), 0);
}

TEST(Dropout, LeavesInputsAloneInEvalAndAtZero) {
  const auto x = at::randn({3, 4});
  EXPECT_TRUE(dropout(x, 0.5, 0, false).is_same(x));
  EXPECT_TRUE(dropout(x, 0, 0, true).is_same(x));
}

TEST(Dropout, RefusesToDrawWithoutAKeyForEachSample) {
  EXPECT_THROW(dropout(at::ones({3, 4}), 0.5, 0, true), Error);
  Keyed keyed(1, 0, 2);
  EXPECT_THROW(dropout(at::ones({3, 4}), 0.5, 0, true), Error);
}

TEST(Dropout, KeepsHalfPrecision) {
  Keyed keyed(1, 0, 3);
  EXPECT_EQ(dropout(at::ones({3, 9}, at::kBFloat16), 0.5, 0, true).scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace lehr::models
