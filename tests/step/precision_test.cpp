#include "engine/step/precision.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

FixedFields with(const std::string& precision) {
  return FixedFields({{"training.precision", precision}, {"optimizer.lr", 0.01}});
}

std::vector<double> losses(const FixedFields& fields, int steps) {
  auto model = toy::mlp({.widths = {5, 16, 3}});
  Step step(model, fields, {});
  std::vector<double> result;
  for (int i = 0; i < steps; ++i) result.push_back(step.take({toy::classes(32)}).loss);
  return result;
}

// Loss and gradients of one batch in double arithmetic, of numbers that are rounded to `type` where
// they are stored in it: operands and results of products, the activation, and on the way back what
// flows through them, times `scale`.
std::pair<double, std::vector<at::Tensor>> exactly(const models::Model& model, const Batch& batch,
                                                   at::ScalarType type, double scale) {
  const auto stored = [&](const at::Tensor& t) { return t.to(type).to(at::kDouble); };
  std::vector<at::Tensor> p;
  for (const auto& t : model.parameters())
    p.push_back(t.tensor.detach().to(at::kDouble).requires_grad_());
  const at::Tensor before = stored(at::linear(stored(batch.inputs), stored(p[0]), stored(p[1])));
  const at::Tensor after = stored(at::tanh(before)).detach().requires_grad_();
  const at::Tensor loss =
      at::cross_entropy_loss(stored(at::linear(after, stored(p[2]), stored(p[3]))), batch.targets);
  const auto second = torch::autograd::grad({loss * scale}, {after, p[2], p[3]});
  const auto first = torch::autograd::grad(
      {before}, {p[0], p[1]}, {stored(stored(second[0]) * (1 - after.detach().square()))});
  return {loss.item<double>(),
          {first[0] / scale, first[1] / scale, second[1] / scale, second[2] / scale}};
}

TEST(Precision, TakesTheStepOfDoubleArithmeticOnRoundedNumbers) {
  const Batch batch = toy::classes(32);
  for (auto [name, type] : {std::pair{"bf16-mixed", at::kBFloat16},
                            {"bf16-master", at::kBFloat16},
                            {"fp16-mixed", at::kHalf}}) {
    auto model = toy::mlp({.widths = {5, 16, 3}});
    Step step(model,
              with(name)
                  .set("optimizer.name", std::string("sgd"))
                  .set("optimizer.lr", 1.0)
                  .set("optimizer.momentum", 0.0)
                  .set("optimizer.weight_decay", 0.0)
                  .set("training.max_grad_norm", 0.0)
                  .set("training.initial_loss_scale", 1024.0),
              {});
    const NamedTensors before = toy::copy(step.weights());
    const auto [loss, gradients] = exactly(*model, batch, type, type == at::kHalf ? 1024 : 1);
    const StepReport report = step.take({batch});
    EXPECT_NEAR(report.loss, loss, 1e-4 * loss) << name;
    // none seen, but a rounding may fall to the other side on another CPU
    const double unit = type == at::kHalf ? 0x1p-11 : 0x1p-8;
    double squares = 0;
    for (size_t i = 0; i < gradients.size(); ++i) {
      const at::Tensor moved = before[i].tensor.to(at::kDouble) - step.weights()[i].tensor;
      const double size = gradients[i].norm().item<double>();
      EXPECT_LE((moved - gradients[i]).norm().item<double>(), unit * size)
          << name << " " << before[i].name;
      squares += size * size;
    }
    EXPECT_NEAR(report.grad_norm, std::sqrt(squares), unit * std::sqrt(squares)) << name;
  }
}

TEST(Precision, Bf16AndFp16StayCloseToFp32) {
  auto fp32 = losses(with("fp32"), 40);
  EXPECT_LT(fp32.back(), fp32.front());
  for (const char* name : {"bf16-mixed", "fp16-mixed", "bf16-master"}) {
    auto mixed = losses(with(name), 40);
    for (size_t i = 0; i < mixed.size(); ++i)
      EXPECT_NEAR(mixed[i], fp32[i], 2e-3) << name << " " << i;
    EXPECT_NE(mixed, fp32) << name;  // something did run in fewer bits
  }
}

TEST(Precision, WeightsAndGradientsStayFloat32) {
  auto model = toy::mlp();
  Step step(model, with("bf16-mixed"), {});
  step.take({toy::classes(8)});
  for (const auto& t : model->parameters()) EXPECT_EQ(t.tensor.scalar_type(), at::kFloat);
  for (const auto& t : step.state()) EXPECT_EQ(t.tensor.scalar_type(), at::kFloat);
}

TEST(Precision, Bf16MasterMovesFloat32WeightsBehindTheModels) {
  for (const char* kernels : {"auto", "aten"}) {
    auto fields = with("bf16-master").set("training.kernels", std::string(kernels));
    auto model = toy::mlp();
    const NamedTensors before = toy::copy(model->parameters());
    Step step(model, fields, {});
    EXPECT_TRUE(toy::same_bits(step.weights(), before));
    for (const auto& t : model->parameters())
      EXPECT_EQ(t.tensor.scalar_type(), t.tensor.dim() < 2 ? at::kFloat : at::kBFloat16) << t.name;
    for (int i = 0; i < 3; ++i) step.take({toy::classes(8)});
    EXPECT_GT(toy::largest_difference(step.weights(), before), 0.02);
    for (const auto& t : step.weights()) EXPECT_EQ(t.tensor.scalar_type(), at::kFloat) << t.name;
    const auto own = model->parameters();
    for (size_t i = 0; i < own.size(); ++i)
      EXPECT_TRUE(own[i].tensor.equal(step.weights()[i].tensor.to(own[i].tensor.scalar_type())))
          << own[i].name;
    // a step far below bf16's spacing is not lost
    const NamedTensors moved = toy::copy(step.weights());
    fields.set("optimizer.lr", 1e-7);
    step.take({toy::classes(8)});
    EXPECT_FALSE(toy::same_bits(step.weights(), moved));
  }
}

TEST(Precision, Bf16MasterShowsTheModelInFloat32AndTakesItBack) {
  auto model = toy::mlp();
  Step step(model, with("bf16-master"), {});
  step.in_float32([&] {
    EXPECT_TRUE(toy::same_bits(model->parameters(), step.weights()));
    c10::NoGradGuard no_grad;
    for (auto& p : model->parameters()) p.tensor.fill_(0.3);
  });
  for (const auto& t : step.weights()) EXPECT_EQ(t.tensor.min().item<float>(), 0.3F) << t.name;
  for (const auto& t : model->parameters())
    EXPECT_TRUE(t.tensor.equal(at::full_like(t.tensor, 0.3))) << t.name;
  EXPECT_LT(step.take({toy::classes(8)}).loss, 2);
  EXPECT_THROW(step.in_float32([] { throw std::runtime_error("work"); }), std::runtime_error);
  EXPECT_EQ(model->parameters()[0].tensor.scalar_type(), at::kBFloat16);
}

TEST(Precision, Bf16MasterSumsMicroBatchesInFloat32) {
  const Batch batch = toy::classes(64);
  const auto norm = [&](const std::vector<int64_t>& sizes) {
    Step step(toy::mlp(), with("bf16-master"), {});
    return step.take(toy::split(batch, sizes)).grad_norm;
  };
  const double whole = norm({64});
  EXPECT_NEAR(norm(std::vector<int64_t>(64, 1)), whole, 3e-3 * whole);
}

TEST(Precision, GuardLeavesAutocastAsItWas) {
  at::ScalarType before = at::autocast::get_autocast_dtype(at::kCPU);
  {
    Autocast guard(at::kCPU, at::kHalf);
    EXPECT_TRUE(at::autocast::is_autocast_enabled(at::kCPU));
    EXPECT_EQ(at::linear(at::ones({2, 3}), at::ones({4, 3})).scalar_type(), at::kHalf);
  }
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_EQ(at::autocast::get_autocast_dtype(at::kCPU), before);
}

TEST(LossScale, DoublesAfterItsWindowOfGoodSteps) {
  auto fields = with("fp16-mixed")
                    .set("training.initial_loss_scale", 8.0)
                    .set("training.loss_scale_window", int64_t{3});
  Step step(toy::mlp(), fields, {});
  std::vector<double> scales;
  for (int i = 0; i < 7; ++i) scales.push_back(step.take({toy::classes(8)}).loss_scale);
  EXPECT_EQ(scales, (std::vector<double>{8, 8, 8, 16, 16, 16, 32}));
}

TEST(LossScale, HalvesOnOverflowAndTheStepMovesNothing) {
  auto model = toy::mlp();
  // 2^24 times the gradient of a loss of a few units does not fit fp16
  auto fields = with("fp16-mixed").set("training.initial_loss_scale", 16777216.0);
  Step step(model, fields, {});
  auto before = toy::copy(model->parameters()), state = toy::copy(step.state());
  int hooks = 0;
  step.before_update([&] { ++hooks; });
  StepReport report = step.take({toy::classes(2)});
  EXPECT_TRUE(report.skipped);
  EXPECT_EQ(hooks, 0);
  EXPECT_TRUE(toy::same_bits(before, model->parameters()));
  EXPECT_TRUE(toy::same_bits(state, step.state()));
  report = step.take({toy::classes(2)});
  EXPECT_EQ(report.loss_scale, 8388608.0);
  for (int i = 0; i < 20 && report.skipped; ++i) report = step.take({toy::classes(2)});
  EXPECT_FALSE(report.skipped);
  EXPECT_FALSE(toy::same_bits(before, model->parameters()));
}

TEST(LossScale, DoesNotChangeTheUpdate) {
  // powers of two: the scale drops out of every product, unless something under- or overflows
  auto end = [](double scale) {
    auto model = toy::mlp();
    Step step(model,
              with("fp16-mixed")
                  .set("training.initial_loss_scale", scale)
                  .set("training.max_grad_norm", 0.3),
              {});
    StepReport report;
    for (int i = 0; i < 5; ++i) report = step.take({toy::classes(8)});
    return std::pair(toy::copy(model->parameters()), report.grad_norm);
  };
  auto [a, norm_a] = end(256);
  auto [b, norm_b] = end(4096);
  EXPECT_LE(toy::largest_difference(a, b),
            2e-5);  // a gradient below fp16's normal range loses bits
  EXPECT_NEAR(norm_a, norm_b, 1e-3 * norm_a);
}

}  // namespace
}  // namespace lehr::step
