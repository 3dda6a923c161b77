// What a step promises whatever the optimizer: equal for any cut into micro-batches, nothing
// written before the hook, averages in closed form.
#include "engine/step/step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "models/ops.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

// Weights after one SGD step without momentum: differences are those of the gradients.
NamedTensors after_one_step(const FixedFields& fields, const std::vector<Batch>& micro,
                            StepReport* report, const toy::Shape& shape = {}) {
  auto model = toy::mlp(shape);
  FixedFields all = fields;
  all.set("optimizer.name", std::string("sgd"))
      .set("optimizer.momentum", 0.0)
      .set("optimizer.lr", 1.0);
  Step step(model, all, {});
  *report = step.take(micro);
  return toy::copy(model->parameters());
}

void expect_equal_cuts(const FixedFields& fields, const Batch& batch,
                       const toy::Shape& shape = {}) {
  StepReport whole, cut;
  auto expected = after_one_step(fields, {batch}, &whole, shape);
  // a short last micro-batch; single samples; a lopsided pair
  for (const auto& sizes :
       {std::vector<int64_t>{8, 8, 8, 3}, std::vector<int64_t>(27, 1), {26, 1}}) {
    auto found = after_one_step(fields, toy::split(batch, sizes), &cut, shape);
    EXPECT_LE(toy::largest_difference(expected, found), 1e-6);
    EXPECT_NEAR(cut.loss, whole.loss, 1e-6 * whole.loss);
    EXPECT_NEAR(cut.grad_norm, whole.grad_norm, 1e-6 * whole.grad_norm);
    EXPECT_EQ(cut.samples, 27);
  }
}

TEST(Accumulation, EqualsOneBatchWithAShortLastPart) {
  expect_equal_cuts(FixedFields(), toy::classes(27));
}

TEST(Accumulation, EqualsOneBatchWithClassWeights) {
  expect_equal_cuts(
      FixedFields({{"loss.class_weights", FloatList{0.1, 1, 5}}, {"loss.label_smoothing", 0.1}}),
      toy::classes(27));
}

TEST(Accumulation, EqualsOneBatchOfValues) {
  Batch batch = toy::classes(27);
  batch.targets = toy::uniform({27, 3}, 4);
  for (const char* loss : {"mse", "mae", "huber"})
    expect_equal_cuts(FixedFields({{"loss.name", std::string(loss)}}), batch);
}

TEST(Accumulation, EqualsOneBatchWhenClipped) {
  expect_equal_cuts(FixedFields({{"training.max_grad_norm", 0.05}}), toy::classes(27));
}

TEST(Accumulation, EqualsOneBatchUnderDropout) {
  expect_equal_cuts(FixedFields(), toy::classes(27), {.dropout = 0.5});
}

TEST(Step, DrawsAnotherDropoutEveryStep) {
  auto losses = [](uint64_t seed) {
    Step step(toy::mlp({.dropout = 0.5}), FixedFields({{"optimizer.lr", 1e-12}}), {.seed = seed});
    return std::pair(step.take({toy::classes(27)}).loss, step.take({toy::classes(27)}).loss);
  };
  auto [first, second] = losses(1);
  EXPECT_GT(std::abs(first - second), 1e-4);
  EXPECT_EQ(losses(1).second, second);
  EXPECT_NE(losses(2).first, first);
}

TEST(Accumulation, OfNoWeightAtAllMovesNothing) {
  Batch batch = toy::classes(5);
  batch.targets.fill_(2);
  auto model = toy::mlp();
  auto before = toy::copy(model->parameters());
  Step step(model, FixedFields({{"loss.class_weights", FloatList{1, 1, 0}}}), {});
  StepReport report = step.take({batch});
  EXPECT_EQ(report.loss, 0);
  EXPECT_FALSE(report.skipped);
  EXPECT_TRUE(toy::same_bits(before, model->parameters()));
}

TEST(Step, CallsTheHookBeforeAnythingIsWritten) {
  auto model = toy::mlp();
  Step step(model, FixedFields({{"training.ema_decay", 0.9}}), {});
  for (int i = 0; i < 3; ++i) {
    auto weights = toy::copy(model->parameters()), state = toy::copy(step.state());
    int calls = 0;
    step.before_update([&] {
      ++calls;
      EXPECT_TRUE(toy::same_bits(weights, model->parameters()));
      EXPECT_TRUE(toy::same_bits(state, step.state()));
    });
    step.take(toy::split(toy::classes(9), {4, 5}));
    EXPECT_EQ(calls, 1);
    EXPECT_FALSE(toy::same_bits(weights, model->parameters()));
  }
}

TEST(Step, OverfitsOneBatch) {
  auto model = toy::mlp({.widths = {5, 32, 3}});
  Step step(model, FixedFields({{"optimizer.lr", 0.02}}), {});
  Batch batch = toy::classes(16);
  for (int i = 0; i < 300; ++i) step.take({batch});
  EXPECT_LT(step.take({batch}).loss, 0.02);
}

TEST(Step, FollowsItsSchedule) {
  Step step(toy::mlp(),
            FixedFields({{"optimizer.lr", 0.2},
                         {"lr_scheduler.name", std::string("cosine")},
                         {"lr_scheduler.warmup_steps", Duration{2}}}),
            {.total_steps = 10});
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(step.take({toy::classes(4)}).lr, step.lr_at(i));
  EXPECT_DOUBLE_EQ(step.lr_at(0), 0.1);
}

TEST(Step, LeavesNoGradientBehind) {
  auto model = toy::mlp();
  Step step(model, FixedFields(), {});
  step.take({toy::classes(4)});
  for (const auto& p : model->parameters()) EXPECT_FALSE(p.tensor.grad().defined()) << p.name;
  Batch broken = toy::classes(4);
  broken.targets = broken.targets.slice(0, 0, 3);
  EXPECT_THROW(step.take({toy::classes(4), broken}), Error);
  for (const auto& p : model->parameters()) EXPECT_FALSE(p.tensor.grad().defined()) << p.name;
}

TEST(Average, FollowsItsClosedForm) {
  const double d = 0.75;
  auto model = toy::mlp();
  auto start = toy::copy(model->parameters());
  Step step(model, FixedFields({{"training.ema_decay", d}, {"optimizer.lr", 0.05}}), {});
  std::vector<NamedTensors> history;
  for (int i = 0; i < 8; ++i) {
    step.take({toy::classes(8, 5, 3, static_cast<uint64_t>(i))});
    history.push_back(toy::copy(model->parameters()));
  }
  auto averaged = step.averaged();
  for (size_t p = 0; p < start.size(); ++p) {
    // d^n w_0 + (1 - d) sum of d^(n - i) w_i
    at::Tensor sum = start[p].tensor.to(at::kDouble) * std::pow(d, 8);
    for (size_t i = 0; i < 8; ++i)
      sum += history[i][p].tensor.to(at::kDouble) *
             ((1 - d) * std::pow(d, 7 - static_cast<double>(i)));
    EXPECT_EQ(averaged[p].name, start[p].name);
    EXPECT_LE((averaged[p].tensor - sum).abs().max().item<double>(), 1e-6);
  }
}

TEST(Average, OfAWeightThatNoBackwardReachesMovesAllTheSame) {
  for (const char* kernels : {"custom", "aten"}) {
    auto model = toy::mlp();
    FixedFields fields({{"training.ema_decay", 0.5}, {"training.kernels", std::string(kernels)}});
    fields.set("optimizer.freeze", StringList{"fc1.weight"});
    Step step(model, fields, {});
    // no gradient this time: what was reached before has moved away from its average
    step.take({toy::classes(8)});
    const auto find = [](const NamedTensors& all) {
      for (const auto& t : all)
        if (t.name == "fc2.bias") return t.tensor;
      throw std::out_of_range("fc2.bias");
    };
    const at::Tensor weight = find(model->parameters()), average = find(step.averaged());
    const double before = (weight - average).abs().max().item<double>();
    EXPECT_GT(before, 0);
    auto leaf = weight;
    leaf.set_requires_grad(false);
    step.take({toy::classes(8)});
    EXPECT_NEAR((weight - average).abs().max().item<double>(), before / 2, before * 1e-3)
        << kernels;
  }
}

TEST(Step, ReportsHowFarItsKernelsAreFromATensUnderCheck) {
  auto model = toy::mlp();
  Step step(
      model,
      FixedFields({{"training.kernels", std::string("check")}, {"training.max_grad_norm", 0.1}}),
      {});
  for (int i = 0; i < 3; ++i) step.take({toy::classes(8)});
  const auto differences = models::kernel_differences();
  ASSERT_TRUE(differences.contains("adamw"));
  EXPECT_LT(differences.at("adamw"), 1e-6);
}

TEST(Step, CountsItsStateForTheMemoryCheck) {
  auto expect = [](const FixedFields& fields) {
    auto model = toy::mlp();
    double parameters = 0, state = 0;
    for (const auto& p : model->parameters()) parameters += static_cast<double>(p.tensor.nbytes());
    for (const auto& s : Step(model, fields, {}).state())
      state += static_cast<double>(s.tensor.nbytes());
    EXPECT_EQ(step_bytes(fields, model->parameters()).state, state);
    return state / parameters;
  };
  EXPECT_EQ(expect(FixedFields()), 2);
  EXPECT_EQ(expect(FixedFields({{"training.ema_decay", 0.9}})), 3);
  EXPECT_EQ(expect(FixedFields({{"optimizer.name", std::string("sgd")}})), 1);
  EXPECT_EQ(
      expect(FixedFields({{"optimizer.name", std::string("sgd")}, {"optimizer.momentum", 0.0}})),
      0);
}

TEST(Step, RefusesContradictions) {
  auto refused = [](const FixedFields& fields) {
    try {
      Step step(toy::mlp(), fields, {});
    } catch (const Error& e) {
      return e.where();
    }
    return std::string("accepted");
  };
  FixedFields sgd({{"optimizer.name", std::string("sgd")}});
  EXPECT_EQ(
      refused(FixedFields(sgd).set("optimizer.nesterov", true).set("optimizer.momentum", 0.0)),
      "optimizer.nesterov");
  EXPECT_EQ(refused(FixedFields({{"optimizer.betas", FloatList{0.9}}})), "optimizer.betas");
  EXPECT_EQ(refused(FixedFields({{"optimizer.name", std::string("adam")}})), "optimizer.name");
  EXPECT_EQ(refused(FixedFields({{"training.precision", std::string("bf8")}})),
            "training.precision");
  EXPECT_EQ(refused(FixedFields({{"loss.class_weights", FloatList{1, -1, 1}}})),
            "loss.class_weights");
}

}  // namespace
}  // namespace lehr::step
