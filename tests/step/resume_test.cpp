// Ten steps, restore into a fresh Step, ten more: the bits of twenty.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

void overwrite(const NamedTensors& into, const NamedTensors& from) {
  c10::NoGradGuard no_grad;
  ASSERT_EQ(into.size(), from.size());
  for (size_t i = 0; i < into.size(); ++i) {
    ASSERT_EQ(into[i].name, from[i].name);
    at::Tensor target = into[i].tensor;
    target.copy_(from[i].tensor);
  }
}

const StepContext kContext{.total_steps = 20, .steps_per_epoch = 5, .seed = 3};

Batch batch_at(int64_t step) { return toy::classes(8, 5, 3, static_cast<uint64_t>(step)); }

void run(Step& step, int64_t from, int64_t to) {
  log_through([](const std::string&) {});  // the refused step warns
  for (int64_t i = from; i < to; ++i) {
    Batch batch = batch_at(i);
    // one step in the middle is refused, so that steps and updates differ
    if (i == 4) batch.inputs.fill_(std::numeric_limits<float>::quiet_NaN());
    step.take(toy::split(batch, {5, 3}));
  }
  log_through(nullptr);
}

// what a checkpoint holds of the model
NamedTensors everything(const Step& step, const models::Model& model) {
  NamedTensors all = step.weights();
  for (auto& b : model.buffers()) all.push_back(b);
  return all;
}

// Returns the scalars at the end.
nlohmann::json expect_exact_resume(FixedFields fields) {
  fields.set("training.non_finite", std::string("skip"))
      .set("lr_scheduler.name", std::string("cosine"));
  toy::Shape shape{.batch_norm = true, .dropout = 0.3};
  auto whole = toy::mlp(shape);
  Step through(whole, fields, kContext);
  run(through, 0, 20);

  auto first = toy::mlp(shape);
  Step before(first, fields, kContext);
  run(before, 0, 10);
  auto second = toy::mlp(shape, /*seed=*/77);
  Step after(second, fields, kContext);
  after.in_float32(
      [&] { overwrite(everything(after, *second), toy::copy(everything(before, *first))); });
  overwrite(after.state(), toy::copy(before.state()));
  after.restore_scalars(before.scalars());
  EXPECT_EQ(after.steps_taken(), 10);
  run(after, 10, 20);

  EXPECT_TRUE(toy::same_bits(toy::everything(*whole), toy::everything(*second)));
  EXPECT_TRUE(toy::same_bits(through.weights(), after.weights()));
  EXPECT_TRUE(toy::same_bits(through.state(), after.state()));
  EXPECT_EQ(through.scalars(), after.scalars());
  return nlohmann::json::parse(after.scalars());
}

TEST(Resume, IsExactWithAdamW) { expect_exact_resume(FixedFields()); }

TEST(Resume, IsExactWithMomentumAndClipping) {
  expect_exact_resume(FixedFields({{"optimizer.name", std::string("sgd")},
                                   {"optimizer.lr", 0.1},
                                   {"optimizer.nesterov", true},
                                   {"training.max_grad_norm", 0.5}}));
}

TEST(Resume, IsExactWithAverages) {
  expect_exact_resume(
      FixedFields({{"training.ema_decay", 0.9}, {"optimizer.freeze", StringList{"fc1.bias"}}}));
}

TEST(Resume, IsExactWithScaledFp16) {
  auto end = expect_exact_resume(FixedFields({{"training.precision", std::string("fp16-mixed")},
                                              {"training.initial_loss_scale", 1048576.0},
                                              {"training.loss_scale_window", int64_t{4}}}));
  // it overflowed and it grew, so both the scale and its count had to be carried over
  EXPECT_GT(end["skipped"], 2);
  EXPECT_LT(end["loss_scale"], 1048576.0);
  EXPECT_GT(end["updates"], 8);
}

TEST(Resume, IsExactWithBf16Master) {
  expect_exact_resume(FixedFields(
      {{"training.precision", std::string("bf16-master")}, {"training.ema_decay", 0.9}}));
}

TEST(Resume, IsExactInBf16) {
  expect_exact_resume(FixedFields({{"training.precision", std::string("bf16-mixed")}}));
}

TEST(Resume, RefusesScalarsThatDoNotRead) {
  Step step(toy::mlp(), FixedFields(), {});
  for (const char* text : {"", "{}", "[1]", "{\"steps\": \"many\"}"}) {
    try {
      step.restore_scalars(text);
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kCheckpoint);
    }
  }
}

}  // namespace
}  // namespace lehr::step
