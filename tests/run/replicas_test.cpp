#include "engine/run/replicas.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/base/error.h"

namespace lehr::run {
namespace {

// What each rank says when the first weight of those in `flipped` has one bit turned.
std::vector<std::string> said(int size, const std::vector<int>& flipped) {
  auto worlds = dist::thread_worlds(size);
  std::vector<std::string> messages(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      at::Tensor weight = at::full({3, 2}, 0.5F);
      // one bit each, and none like another's
      const auto turned = std::find(flipped.begin(), flipped.end(), rank);
      if (turned != flipped.end())
        static_cast<uint32_t*>(weight.mutable_data_ptr())[0] ^= 1U << (turned - flipped.begin());
      try {
        require_same_replicas(*worlds[static_cast<size_t>(rank)], {{"w", weight}}, 7);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), Code::kRanks);
        messages[static_cast<size_t>(rank)] = e.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return messages;
}

TEST(Replicas, AreLeftAloneWhenEqual) {
  for (int size : {1, 3})
    for (const auto& message : said(size, {})) EXPECT_EQ(message, "");
}

TEST(Replicas, OfAFlippedBitAreNamed) {
  for (const auto& message : said(3, {1}))
    EXPECT_NE(message.find("after step 7 the weights of rank 1 differ from the other ranks'"),
              std::string::npos)
        << message;
  for (const auto& message : said(5, {0, 4}))
    EXPECT_NE(message.find("of rank 0, 4 differ"), std::string::npos) << message;
}

TEST(Replicas, WithoutAMajorityNobodyIsBlamed) {
  for (const auto& message : said(2, {1}))
    EXPECT_NE(message.find("nothing says whose are right"), std::string::npos) << message;
}

}  // namespace
}  // namespace lehr::run
