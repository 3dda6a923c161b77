#include "engine/step/loss.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

FixedFields named(const std::string& name) { return FixedFields({{"loss.name", name}}); }

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kRecipe);
    return e.what();
  }
  return "no error";
}

TEST(Loss, SaysHowManyOutputsTheModelNeeds) {
  EXPECT_EQ(output_count(named("cross_entropy"), 10, 0), 10);
  EXPECT_EQ(output_count(named("binary_cross_entropy"), 2, 0), 1);
  for (const char* name : {"mse", "mae", "huber"}) EXPECT_EQ(output_count(named(name), 0, 3), 3);
}

TEST(Loss, RefusesATargetThatItDoesNotFit) {
  EXPECT_NE(message_of([] { output_count(named("cross_entropy"), 0, 1); }).find("use mse"),
            std::string::npos);
  EXPECT_NE(message_of([] { output_count(named("mse"), 10, 0); }).find("use cross_entropy"),
            std::string::npos);
  EXPECT_NE(message_of([] { output_count(named("binary_cross_entropy"), 3, 0); }).find("has 3"),
            std::string::npos);
  auto weighted = named("cross_entropy").set("loss.class_weights", FloatList{1, 2});
  EXPECT_NE(message_of([&] { output_count(weighted, 3, 0); }).find("2 class weights for 3 classes"),
            std::string::npos);
}

TEST(Loss, NamesTheNearestOfAnUnknownName) {
  EXPECT_NE(message_of([] { output_count(named("cross_entropi"), 3, 0); }).find("`cross_entropy`"),
            std::string::npos);
}

TEST(Loss, RefusesShapesThatWouldBroadcast) {
  LossFields fields;
  fields.name = "mse";
  auto loss = make_loss(fields);
  EXPECT_THROW(loss->sum(at::zeros({4, 1}), at::zeros({4})), Error);  // would be 4 x 4
}

TEST(Loss, SumIsTheSumOfEachSample) {
  Batch batch = toy::classes(9);
  at::Tensor outputs = toy::uniform({9, 3}, 5);
  LossFields fields;
  fields.class_weights = {1, 2, 0.5};
  fields.label_smoothing = 0.2;
  auto loss = make_loss(fields);
  EXPECT_NEAR(loss->each(outputs, batch.targets).sum().item<double>(),
              loss->sum(outputs, batch.targets).item<double>(), 1e-5);
}

TEST(Loss, IsTakenInFloat32WhateverTheOutputs) {
  Batch batch = toy::classes(9);
  auto loss = make_loss({});
  at::Tensor sum = loss->sum(toy::uniform({9, 3}, 5).to(at::kBFloat16), batch.targets);
  EXPECT_EQ(sum.scalar_type(), at::kFloat);
}

TEST(Loss, ScoresAreProbabilitiesOrValues) {
  at::Tensor p = to_scores(named("cross_entropy"), toy::uniform({4, 3}, 1, -9, 9));
  EXPECT_LE((p.sum(1) - 1).abs().max().item<double>(), 1e-6);
  at::Tensor logit = at::tensor({-2.0f, 0.0f, 30.0f}).unsqueeze(1);
  at::Tensor two = to_scores(named("binary_cross_entropy"), logit);
  ASSERT_EQ(two.sizes(), at::IntArrayRef({3, 2}));
  EXPECT_TRUE(at::allclose(two.select(1, 1), at::sigmoid(logit.squeeze(1))));
  EXPECT_LE((two.sum(1) - 1).abs().max().item<double>(), 1e-6);
  EXPECT_TRUE(at::equal(to_scores(named("mse"), logit), logit));
}

TEST(Loss, EvaluationSumsMergeToTheMean) {
  auto model = toy::mlp();
  Batch batch = toy::classes(10);
  auto fields = named("cross_entropy").set("loss.class_weights", FloatList{1, 4, 0.5});
  c10::NoGradGuard no_grad;
  const Evaluated all = evaluate_batch(fields, *model, batch);
  const Evaluated a = evaluate_batch(fields, *model, toy::rows(batch, 0, 7));
  const Evaluated b = evaluate_batch(fields, *model, toy::rows(batch, 7, 10));
  EXPECT_NEAR((a.sum + b.sum) / (a.weight + b.weight), all.sum / all.weight, 1e-6);
  EXPECT_EQ(all.outputs.sizes(), at::IntArrayRef({10, 3}));
}

}  // namespace
}  // namespace lehr::step
