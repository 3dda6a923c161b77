// What a resolved recipe promises: it reads back as the same recipe, whatever the values are.
#include <gtest/gtest.h>

#include "engine/base/hash.h"
#include "tests/recipe/random_recipe.h"
#include "tests/recipe/sample.h"
#include "tests/recipe/support.h"

namespace lehr::recipe {
namespace {

TEST(Resolved, OfRandomRecipesReadsBackAsTheSame) {
  auto sections = sample::sections();
  auto merged = merge(sections);
  for (unsigned seed = 0; seed < 1000; ++seed) {
    RandomRecipe random(seed);
    random.make(merged);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + random.text);
    ASSERT_EQ(mistakes_of([&] {
                Recipe first = Recipe::parse(random.text, "r.yaml", {}, sections);
                for (const auto& [key, value] : random.values) {
                  EXPECT_EQ(first.value(key), value) << key;
                }
                Recipe again = Recipe::parse(first.resolved(), "resolved.yaml", {}, sections);
                EXPECT_EQ(again.resolved(), first.resolved());
                EXPECT_EQ(again.hash(), first.hash());
                EXPECT_TRUE(first.differences(again).empty());
                for (const auto& [key, value] : random.values) {
                  EXPECT_EQ(again.value(key), value) << key;
                }
              }),
              "");
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Resolved, HasEveryFieldInUseWithUnitsAndQuotesWhereNeeded) {
  Recipe r = Recipe::parse(
      "model: {name: cnn}\n"
      "data: {train: ../x.csv, extra: [no, '1e3', 'a: b', \"\", 'C:\\x', './-'], augment: {flip: "
      "false}}\n"
      "loss: {note: '$${x} \"', class_weights: {cat: 1, no: 2.5, 'a b': 1e-7, x: 3e18}}\n"
      "optimizer: {lr: .inf}\n"
      "training: {max_time: 30min, max_grad_norm: 1}\n",
      "r.yaml", {}, sample::sections());
  EXPECT_EQ(r.resolved(), R"(model:
  name: cnn
  init_from: ""
  classes: 10
  hidden: 32  # channels
  dropout: 0.25

data:
  train: ../x.csv
  extra: ["no", "1e3", "a: b", "", "C:\\x", ./-]
  validation_fraction: 0.1
  drop_last: false
  augment:
    crop:
      pad: 2  # pixels
      mode: none
    flip: false
  limit: null

loss:
  class_weights: {cat: 1, "no": 2.5, a b: 1e-07, x: 3e+18}
  note: "$${x} \""

optimizer:
  name: adamw
  lr: .inf
  betas: [0.9, 0.999]
  freeze: []

training:
  max_time: 1800s
  seed: 0
  micro_batch_size: 32
  global_batch_size: 32
  max_grad_norm: 1
  deterministic: false
  precision: fp32

checkpoint:
  interval: 500
  report: 10
  drops: []
  run: ""
  file: trace.json
  folder: checkpoints
)");
}

TEST(Resolved, HashIsTheSha256OfTheText) {
  Recipe r = Recipe::parse("data: {train: x}\n", "r.yaml", {}, sample::sections());
  EXPECT_EQ(r.hash(), sha256(r.resolved()));
  EXPECT_EQ(r.hash().size(), 64);
}

}  // namespace
}  // namespace lehr::recipe
