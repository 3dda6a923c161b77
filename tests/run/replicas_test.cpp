#include "engine/run/replicas.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "engine/base/error.h"

namespace lehr::run {
namespace {

using Ask = std::function<void(dist::World&, const at::Tensor&)>;

void now(dist::World& world, const at::Tensor& weight) {
  Replicas(world, nullptr).require_same({{"w", weight}}, 7);
}

// With the sums of two steps: the first comes while the tensors are still read.
void beside(dist::World& world, const at::Tensor& weight) {
  Replicas replicas(world, nullptr);
  replicas.begin({{"w", weight}}, 7);
  const std::function<void()> approval = replicas.approval();
  for (int step = 0; step < 2; ++step) {
    at::Tensor numbers = at::zeros({5}, at::kDouble);
    const Replicas::Numbers told = replicas.tell();
    std::copy(told.begin(), told.end(), numbers.mutable_data_ptr<double>());
    world.sum(numbers);
    try {
      replicas.hear(numbers.const_data_ptr<double>());
    } catch (const Error&) {
      EXPECT_EQ(step, 1);
      EXPECT_THROW(approval(), Error);
      throw;
    }
    replicas.finish_reading();
  }
  if (approval) approval();
}

void settled(dist::World& world, const at::Tensor& weight) {
  Replicas replicas(world, nullptr);
  replicas.begin({{"w", weight}}, 7);
  replicas.settle();
}

// What each rank says when the first weight of those in `flipped` has one bit turned.
std::vector<std::string> said(int size, const std::vector<int>& flipped, const Ask& ask = now) {
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
        ask(*worlds[static_cast<size_t>(rank)], weight);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), Code::kRanks);
        messages[static_cast<size_t>(rank)] = e.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return messages;
}

TEST(Replicas, AreLeftAloneWhenEqual) {
  for (const Ask& ask : {Ask(now), Ask(beside), Ask(settled)})
    for (int size : {1, 3})
      for (const auto& message : said(size, {}, ask)) EXPECT_EQ(message, "");
}

TEST(Replicas, OfAFlippedBitAreNamed) {
  for (const Ask& ask : {Ask(now), Ask(beside), Ask(settled)})
    for (const auto& message : said(3, {1}, ask))
      EXPECT_NE(message.find("after step 7 the weights of rank 1 differ from the other ranks'"),
                std::string::npos)
          << message;
  for (const auto& message : said(5, {0, 4}))
    EXPECT_NE(message.find("of rank 0, 4 differ"), std::string::npos) << message;
}

TEST(Replicas, ThatAreNotComparedBeforeTheEndAreTakenForEqual) {
  auto worlds = dist::thread_worlds(2);
  std::function<void()> approval;
  {
    Replicas replicas(*worlds[0], nullptr);
    replicas.begin({{"w", at::ones({3})}}, 7);
    approval = replicas.approval();
  }
  EXPECT_NO_THROW(approval());
}

TEST(Replicas, WithoutAMajorityNobodyIsBlamed) {
  for (const auto& message : said(2, {1}))
    EXPECT_NE(message.find("nothing says whose are right"), std::string::npos) << message;
}

}  // namespace
}  // namespace lehr::run
