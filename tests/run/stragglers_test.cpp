#include "engine/run/stragglers.h"

#include <gtest/gtest.h>

#include "engine/base/random.h"

namespace lehr::run {
namespace {

// What is said over `steps` steps of about `usual` seconds, of which one rank takes `times` as
// many.
std::vector<std::string> said(size_t steps, double times, size_t ranks = 4) {
  const size_t slow = ranks > 2 ? 2 : 1;
  Stragglers stragglers;
  std::vector<std::string> all;
  for (size_t i = 0; i < steps; ++i) {
    std::vector<double> seconds;
    for (size_t r = 0; r < ranks; ++r) {
      // noise of 30 %, and a step in ten that takes five times as long
      const uint64_t bits = mix64(i * ranks + r);
      const double noise = 1 + 0.3 * static_cast<double>(bits % 1000) / 1000;
      const double stall = bits / 1000 % 10 == 0 ? 5 : 1;
      seconds.push_back(0.010 * noise * stall * (r == slow ? times : 1));
    }
    if (const std::string text = stragglers.note(seconds); !text.empty()) all.push_back(text);
  }
  return all;
}

TEST(Stragglers, AreNamedOnceAWindow) {
  const auto all = said(100, 2);
  ASSERT_EQ(all.size(), 2U);
  EXPECT_NE(all[0].find("slow, and all waited for them: rank 2 ("), std::string::npos) << all[0];
  EXPECT_EQ(said(100, 2, 2).size(), 2U);
}

TEST(Stragglers, AreNotSeenInAThousandCleanSteps) {
  EXPECT_EQ(said(1000, 1).size(), 0U);
  EXPECT_EQ(said(1000, 1, 2).size(), 0U);
}

}  // namespace
}  // namespace lehr::run
