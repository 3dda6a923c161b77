// A language model's micro-batch in parts: the same sum and gradients as in one piece, the same
// bits every time, dropout keyed by the sample wherever it runs.
#include "engine/step/parts.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/step/loss.h"
#include "engine/step/step.h"
#include "models/ops.h"

namespace lehr::step {
namespace {

struct Toy {
  std::shared_ptr<models::Model> model;
  std::unique_ptr<Loss> loss = make_loss(LossFields{});
  Batch batch;

  explicit Toy(const std::string& name, int64_t size = 6) {
    for (const auto& entry : models::registry()) {
      if (entry.name != name) continue;
      models::ModelContext context = entry.toy_context;
      context.options = at::TensorOptions().dtype(at::kFloat);
      context.seed = 1;
      model = entry.make(entry.toy_fields, context);
      const int64_t t = context.context, v = context.vocabulary;
      batch.inputs = at::arange(size * t).mul(5).remainder(v).view({size, t});
      batch.targets = at::arange(size * t).mul(3).remainder(v).view({size, t});
      batch.targets.select(0, 0).fill_(-100);  // a sample that does not count
    }
    batch.samples.resize(static_cast<size_t>(size));
    std::iota(batch.samples.begin(), batch.samples.end(), 40);
  }

  // {sum, gradients in the order of the parameters}
  std::vector<at::Tensor> run(int64_t parts) {
    const NamedTensors parameters = model->parameters();
    for (const auto& p : parameters) p.tensor.mutable_grad().reset();
    std::vector<at::Tensor> results{backward_in_parts(
        batch, parts, parameters, at::scalar_tensor(0.25), [this](const Batch& part) {
          models::DropoutKey key{7, 3, &part.samples};
          models::set_dropout_key(&key);
          const models::KernelScope custom(models::Kernels::kCustom);
          at::Tensor sum = forward_sum(*model, *loss, part, std::nullopt);
          models::set_dropout_key(nullptr);
          return sum;
        })};
    for (const auto& p : parameters) results.push_back(p.tensor.grad().clone());
    return results;
  }
};

class Parts : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, Parts, testing::Values("gpt2", "llama"));

TEST_P(Parts, GiveTheSumAndTheGradientsOfTheWhole) {
  Toy toy(GetParam());
  const auto whole = toy.run(1);
  for (int64_t parts : {2, 3, 6}) {
    const auto split = toy.run(parts);
    for (size_t i = 0; i < whole.size(); ++i) {
      const double scale = whole[i].abs().max().item<double>();
      EXPECT_LE((whole[i] - split[i]).abs().max().item<double>(), 1e-5 * scale + 1e-7)
          << parts << " parts, result " << i;
    }
  }
}

TEST_P(Parts, GiveTheSameBitsOnAnyNumberOfThreads) {
  Toy toy(GetParam());
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = toy.run(3);
  at::set_num_threads(2);
  for (int again = 0; again < 5; ++again) {
    const auto two = toy.run(3);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
  }
  at::set_num_threads(before);
}

// perplexity and bits per byte follow from it
TEST_P(Parts, AnEvaluationIsCrossEntropyAloneWhateverTrainingAdds) {
  Toy toy(GetParam());
  toy.model->train(false);
  const c10::NoGradGuard no_grad;
  const Evaluated plain = evaluate_batch(FixedFields(), *toy.model, toy.batch);
  const Evaluated other = evaluate_batch(
      FixedFields({{"loss.label_smoothing", 0.3}, {"loss.z_loss", 0.1}}), *toy.model, toy.batch);
  EXPECT_EQ(other.sum, plain.sum);
  const at::Tensor logits = toy.model->forward(toy.batch.inputs).flatten(0, 1);
  const double sum =
      at::cross_entropy_loss(logits, toy.batch.targets.flatten(), {}, at::Reduction::Sum)
          .item<double>();
  EXPECT_NEAR(plain.sum, sum, 1e-5 * sum);
}

TEST(PartsOf, AreNeverMoreThanSamplesAndOneForALargeModel) {
  Toy toy("gpt2", 2);
  const int before = at::get_num_threads();
  at::set_num_threads(4);
  EXPECT_EQ(parts_of(toy.batch, toy.model->parameters()), 2);
  EXPECT_EQ(parts_of(Toy("gpt2", 9).batch, toy.model->parameters()), 4);
  const at::Tensor large = at::empty({1}, at::kFloat).expand({5 << 20});
  EXPECT_EQ(parts_of(toy.batch, {{"large", large}}), 1);
  at::set_num_threads(before);
}

TEST(PartsOf, KeepRowsAndTheirNumbersTogether) {
  Toy toy("gpt2");
  toy.batch.segments = at::arange(6 * 8).view({6, 8});
  const Batch part = rows_of(toy.batch, 2, 5);
  EXPECT_EQ(part.samples, (std::vector<int64_t>{42, 43, 44}));
  EXPECT_TRUE(at::equal(part.inputs, toy.batch.inputs.slice(0, 2, 5)));
  EXPECT_TRUE(at::equal(part.targets, toy.batch.targets.slice(0, 2, 5)));
  EXPECT_TRUE(at::equal(part.segments, toy.batch.segments.slice(0, 2, 5)));
}

}  // namespace
}  // namespace lehr::step
