// The non-finite guard: nothing has moved, not even batch statistics, and the message names who did
// it.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <limits>

#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/step/culprit.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

FixedFields policy(const std::string& name) { return FixedFields({{"training.non_finite", name}}); }

// Takes a step that must be refused; returns the message and checks that no bit has moved.
std::string refused(models::Model& model, Step& step, const std::vector<Batch>& micro) {
  auto before = toy::copy(toy::everything(model)), state = toy::copy(step.state());
  std::string scalars = step.scalars(), message = "no error";
  int hooks = 0;
  step.before_update([&] { ++hooks; });
  try {
    step.take(micro);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kNonFinite);
    message = e.message();
  }
  EXPECT_EQ(hooks, 0);
  EXPECT_TRUE(toy::same_bits(before, toy::everything(model)));
  EXPECT_TRUE(toy::same_bits(state, step.state()));
  EXPECT_EQ(scalars, step.scalars());
  EXPECT_TRUE(model.is_training());
  for (const auto& p : model.parameters()) EXPECT_FALSE(p.tensor.grad().defined());
  step.before_update({});
  return message;
}

TEST(Guard, StopsAndNamesTheSampleWithSuchAnInput) {
  auto model = toy::mlp({.batch_norm = true});
  Step step(model, policy("stop"), {});
  step.take({toy::classes(8)});
  auto micro = toy::split(toy::classes(12), {4, 8});
  micro[1].inputs[3][2] = kNan;
  micro[1].epoch = 2;
  EXPECT_EQ(
      refused(*model, step, micro),
      "step 2: the input is not finite for sample 107 of epoch 2 (micro-batch 1, position 3)");
  EXPECT_FALSE(step.take({toy::classes(8)}).skipped);
}

TEST(Guard, NamesTheSampleWithSuchALossBehindBatchNorm) {
  auto model = toy::mlp({.batch_norm = true}, 1, /*relu=*/true);
  {
    c10::NoGradGuard no_grad;
    model->parameters()[0].tensor.mul_(100);
  }
  Step step(model, policy("stop"), {});
  Batch batch = toy::classes(8);
  batch.inputs[5].fill_(3e38f);  // finite, but its products with such weights are not
  EXPECT_EQ(refused(*model, step, {batch}),
            "step 1: the loss is not finite for sample 105 of epoch 0 (micro-batch 0, position 5)");
}

TEST(Guard, NamesTheLargestLossWhenBatchStatisticsOverflow) {
  auto model = toy::mlp({.batch_norm = true}, 1, /*relu=*/true);
  Step step(model, policy("stop"), {});
  Batch batch = toy::classes(8);
  batch.inputs[5].fill_(
      3e38f);  // its variance is not finite, and every sample of the batch sees it
  std::string message = refused(*model, step, {batch});
  EXPECT_NE(message.find("comes from batch statistics or dropout"), std::string::npos) << message;
  EXPECT_NE(message.find("for sample 105 of epoch 0 (micro-batch 0, position 5)"),
            std::string::npos)
      << message;
}

// Whose second sample has such a loss as it is packed, and not as one document.
class Packed : public models::LanguageModel {
 public:
  Packed() { table_ = add_parameter("table", toy::uniform({3, 4}, 1)); }
  at::Tensor hidden(const Input& input) override {
    at::Tensor states = at::embedding(table_, input.ids);
    if (input.segments.defined())
      states = states + at::where(input.segments.gt(0), kNan, 0.F).unsqueeze(-1);
    return states;
  }
  at::Tensor head() const override { return table_; }
  int64_t vocabulary() const override { return 3; }
  int64_t longest() const override { return 8; }

 private:
  at::Tensor table_;
};

TEST(Guard, NamesTheSampleWithSuchALossAmongItsDocuments) {
  Packed model;
  Batch batch;
  batch.inputs = at::tensor({0, 1, 2, 0, 1, 2}, at::kLong).view({3, 2});
  batch.targets = batch.inputs;
  batch.segments = at::tensor({0, 0, 0, 1, 0, 0}, at::kLong).view({3, 2});
  batch.samples = {7, 8, 9};
  const auto loss = make_loss({.name = "cross_entropy"});
  const Culprit culprit = find_culprit({model, *loss, {batch}, {}, {}, {}});
  EXPECT_EQ(culprit.text,
            "the loss is not finite for sample 8 of epoch 0 (micro-batch 0, position 1)");
}

TEST(Guard, NamesTheSampleWithSuchATarget) {
  auto model = toy::mlp();
  Step step(model, policy("stop").set("loss.name", std::string("mse")), {});
  Batch batch = toy::classes(4);
  batch.targets = toy::uniform({4, 3}, 9);
  batch.targets[2][0] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(
      refused(*model, step, {batch}),
      "step 1: the target is not finite for sample 102 of epoch 0 (micro-batch 0, position 2)");
}

TEST(Guard, NamesEightSamplesAndCountsTheRest) {
  auto model = toy::mlp();
  Step step(model, policy("stop"), {});
  Batch batch = toy::classes(11);
  batch.inputs.fill_(kNan);
  std::string message = refused(*model, step, {batch});
  EXPECT_NE(message.find("sample 107 "), std::string::npos) << message;
  EXPECT_EQ(message.find("sample 108 "), std::string::npos) << message;
  EXPECT_TRUE(message.ends_with(" and 3 more")) << message;
}

TEST(Guard, NamesAParameterThatWasBadBefore) {
  auto model = toy::mlp();
  Step step(model, policy("stop"), {});
  {
    c10::NoGradGuard no_grad;
    model->parameters()[2].tensor[0][0].fill_(kNan);
  }
  EXPECT_EQ(refused(*model, step, {toy::classes(4)}),
            "step 1: parameter `fc2.weight` was not finite before this step");
}

// sqrt at zero: a finite loss whose gradient is not
class Root : public models::Model {
 public:
  Root() { weight_ = add_parameter("weight", at::zeros({5, 3})); }
  at::Tensor forward(const at::Tensor& x) override { return at::sqrt(at::mm(x, weight_).abs()); }

 private:
  at::Tensor weight_;
};

TEST(Guard, NamesTheParameterWhenOnlyItsGradientIsBad) {
  auto model = std::make_shared<Root>();
  Step step(model, policy("stop"), {});
  EXPECT_EQ(refused(*model, step, {toy::classes(4)}),
            "step 1: the loss of every sample is finite, but the gradient of `weight` is not");
}

TEST(Guard, Fp16StopsWhenNoScaleIsLeftToTakeAway) {
  auto model = std::make_shared<Root>();
  Step step(model,
            policy("stop")
                .set("training.precision", std::string("fp16-mixed"))
                .set("training.initial_loss_scale", 4.0),
            {});
  EXPECT_TRUE(step.take({toy::classes(4)}).skipped);
  EXPECT_TRUE(step.take({toy::classes(4)}).skipped);
  EXPECT_NE(refused(*model, step, {toy::classes(4)}).find("gradient of `weight`"),
            std::string::npos);
}

// Finite losses and gradients around a batch norm that divides by an infinite deviation.
Batch overflowing() {
  Batch batch = toy::classes(8);
  batch.inputs[5].fill_(1e25f);
  return batch;
}

TEST(Guard, NamesBatchStatisticsThatWouldNoLongerBeFinite) {
  for (const char* precision : {"fp32", "fp16-mixed"}) {
    auto model = toy::mlp({.batch_norm = true});
    FixedFields fields = policy("stop");
    if (std::string(precision) == "fp32") {
      Step step(model, fields, {});
      const std::string message = refused(*model, step, {toy::classes(8), overflowing()});
      EXPECT_NE(message.find("`bn1.running_var`"), std::string::npos) << message;
      EXPECT_NE(message.find("for sample 105 of epoch 0 (micro-batch 1, position 5)"),
                std::string::npos)
          << message;
      continue;
    }
    // a smaller loss scale cures no statistics: none is tried
    Step step(model,
              fields.set("training.precision", std::string(precision))
                  .set("training.initial_loss_scale", 4.0),
              {});
    refused(*model, step, {overflowing()});
  }
}

TEST(Guard, LetsASingleValueAChannelLeaveTheVarianceAlone) {
  for (int64_t size : {1, 2}) {
    auto model = toy::mlp({.batch_norm = true});
    Step step(model, policy("stop"), {});
    const NamedTensors before = toy::copy(model->buffers());
    EXPECT_FALSE(step.take({toy::classes(size)}).skipped);
    const NamedTensors after = model->buffers();
    for (size_t i = 0; i < before.size(); ++i) {
      const auto& [name, tensor] = after[i];
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
      EXPECT_EQ(before[i].tensor.equal(tensor), size == 1 && name == "bn1.running_var") << name;
    }
  }
}

TEST(Guard, SkipsCountsAndGoesOn) {
  static std::string said;
  log_through([](const std::string& line) { said += line; });
  auto model = toy::mlp({.batch_norm = true}), twin = toy::mlp({.batch_norm = true});
  Step step(model, policy("skip"), {}), other(twin, policy("skip"), {});
  Batch good = toy::classes(8), bad = toy::classes(8);
  bad.inputs[1].fill_(kNan);
  auto before = toy::copy(toy::everything(*model)), state = toy::copy(step.state());
  StepReport report = step.take({good, bad});
  log_through(nullptr);
  EXPECT_TRUE(report.skipped);
  EXPECT_NE(said.find("sample 101 of epoch 0 (micro-batch 1, position 1); the step was skipped"),
            std::string::npos)
      << said;
  EXPECT_TRUE(toy::same_bits(before, toy::everything(*model)));
  EXPECT_TRUE(toy::same_bits(state, step.state()));
  EXPECT_EQ(step.steps_taken(), 1);
  EXPECT_NE(step.scalars().find("\"skipped\":1"), std::string::npos) << step.scalars();
  // the next update is the first one: bias correction counts updates, not steps
  step.take({good});
  other.take({good});
  EXPECT_TRUE(toy::same_bits(toy::everything(*twin), toy::everything(*model)));
}

}  // namespace
}  // namespace lehr::step
