// What every model promises by being in the registry. A model's own test holds only what is
// peculiar.
#include <ATen/autocast_mode.h>

#include <set>

#include "tests/models/toy.h"

namespace lehr::models {
namespace {

using namespace testing;

class EveryModel : public ::testing::TestWithParam<ModelEntry> {};

std::string name_of(const ::testing::TestParamInfo<ModelEntry>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Registry, EveryModel, ::testing::ValuesIn(registry()), name_of);

// Batch norm uses its running values; dropout stays as it is.
void freeze_norms(Module& module) {
  for (const auto& [name, tensor] : module.own_buffers())
    if (name == "running_mean") module.train(false);
  for (const auto& [name, child] : module.children()) freeze_norms(*child);
}

TEST_P(EveryModel, OverfitsOneBatch) {
  const auto& entry = GetParam();
  auto model = toy(entry);
  const auto x = toy_input(entry, 12), y = toy_targets(entry, 12);
  const NamedTensors parameters = model->parameters();
  std::vector<at::Tensor> first, second;
  for (const auto& [name, p] : parameters) {
    first.push_back(at::zeros_like(p, p.options().requires_grad(false)));
    second.push_back(at::zeros_like(first.back()));
  }
  double loss_now = 0;
  for (int step = 1; step <= 120; ++step) {
    Keyed keyed(step, 0, 12);
    auto loss = at::cross_entropy_loss(flat(model->forward(x)), y);
    loss_now = loss.item<double>();
    loss.backward();
    at::NoGradGuard no_grad;
    // Adam, written out
    for (size_t i = 0; i < parameters.size(); ++i) {
      auto& p = parameters[i].tensor;
      const at::Tensor g = p.grad();
      first[i].mul_(0.9).add_(g, 0.1);
      second[i].mul_(0.99).addcmul_(g, g, 0.01);
      p.addcdiv_(first[i] / (1 - std::pow(0.9, step)),
                 (second[i] / (1 - std::pow(0.99, step))).sqrt().add_(1e-8), -0.02);
    }
    clear_gradients(*model);
  }
  EXPECT_LT(loss_now, 0.15);
}

TEST_P(EveryModel, StartsFromTheSameBitsForTheSameSeed) {
  const auto& entry = GetParam();
  const auto a = toy(entry, 5)->parameters(), b = toy(entry, 5)->parameters();
  const auto c = toy(entry, 6)->parameters();
  ASSERT_EQ(a.size(), b.size());
  bool differs = false;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].tensor.equal(b[i].tensor)) << a[i].name;
    differs |= !a[i].tensor.equal(c[i].tensor);
  }
  EXPECT_TRUE(differs);
}

TEST_P(EveryModel, HasFiniteGradientsEverywhere) {
  const auto& entry = GetParam();
  for (const bool bf16 : {false, true}) {
    auto model = toy(entry);
    Keyed keyed(1, 0, 6);
    at::autocast::set_autocast_enabled(at::kCPU, bf16);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    const at::Tensor outputs = model->forward(toy_input(entry, 6));
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::cross_entropy_loss(flat(outputs).to(at::kFloat), toy_targets(entry, 6)).backward();
    for (const auto& [name, tensor] : model->parameters()) {
      ASSERT_TRUE(tensor.grad().defined()) << name;
      EXPECT_TRUE(at::isfinite(tensor.grad()).all().item<bool>()) << name;
      EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << name;
    }
  }
}

TEST_P(EveryModel, TreatsRowsAloneInEval) {
  const auto& entry = GetParam();
  auto model = toy(entry);
  at::NoGradGuard no_grad;
  model->train(false);
  const auto x = toy_input(entry, 5);
  const auto all = model->forward(x);
  EXPECT_EQ(flat(all).sizes(),
            (std::vector<int64_t>{toy_targets(entry, 5).size(0), entry.toy_context.outputs}));
  EXPECT_LT(largest_difference(all.slice(0, 0, 2), model->forward(x.slice(0, 0, 2))), 1e-5);
  EXPECT_LT(largest_difference(all.slice(0, 4, 5), model->forward(x.slice(0, 4, 5))), 1e-5);
  EXPECT_TRUE(all.equal(model->forward(x)));
}

TEST_P(EveryModel, TakesAnyMemoryLayout) {
  const auto& entry = GetParam();
  auto model = toy(entry);
  at::NoGradGuard no_grad;
  model->train(false);
  const auto x = toy_input(entry, 3);
  EXPECT_TRUE(model->forward(x).equal(model->forward(x.contiguous())));
}

TEST_P(EveryModel, HasTheSameShapesOnTheMetaDevice) {
  const auto& entry = GetParam();
  auto real = toy(entry), meta = toy(entry, 1, at::kMeta);
  auto compare = [](const NamedTensors& a, const NamedTensors& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].name, b[i].name);
      EXPECT_EQ(a[i].tensor.sizes(), b[i].tensor.sizes()) << a[i].name;
      EXPECT_EQ(a[i].tensor.strides(), b[i].tensor.strides()) << a[i].name;
      EXPECT_EQ(a[i].tensor.dtype(), b[i].tensor.dtype()) << a[i].name;
      EXPECT_TRUE(b[i].tensor.is_meta()) << a[i].name;
    }
  };
  compare(real->parameters(), meta->parameters());
  compare(real->buffers(), meta->buffers());
  Keyed keyed(1, 0, 4);
  EXPECT_EQ(real->forward(toy_input(entry, 4)).sizes(),
            meta->forward(toy_input(entry, 4, at::kMeta)).sizes());
}

TEST_P(EveryModel, GivesTheSameGradientFromMicroBatches) {
  const auto& entry = GetParam();
  auto model = toy(entry);
  freeze_norms(*model);
  const auto x = toy_input(entry, 12), y = toy_targets(entry, 12);
  auto gradients = [&](int64_t micro) {
    clear_gradients(*model);
    for (int64_t begin = 0; begin < 12; begin += micro) {
      Keyed keyed(1, begin, micro);
      const auto outputs = flat(model->forward(x.slice(0, begin, begin + micro)));
      const int64_t rows = y.size(0) / 12;  // of a sample
      const auto targets = y.slice(0, begin * rows, (begin + micro) * rows);
      (at::cross_entropy_loss(outputs, targets, {}, at::Reduction::Sum) / y.size(0)).backward();
    }
    std::vector<at::Tensor> result;
    for (const auto& [name, tensor] : model->parameters()) result.push_back(tensor.grad().clone());
    return result;
  };
  const auto whole = gradients(12), parts = gradients(3);
  for (size_t i = 0; i < whole.size(); ++i) {
    const double scale = whole[i].abs().max().item<double>();
    EXPECT_LT(largest_difference(whole[i], parts[i]), 1e-5 * scale + 1e-7)
        << model->parameters()[i].name;
  }
}

TEST_P(EveryModel, NamesEachTensorOnce) {
  auto model = toy(GetParam());
  std::set<std::string> names;
  for (const auto& [name, tensor] : model->parameters()) {
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_TRUE(tensor.requires_grad()) << name;
  }
  for (const auto& [name, tensor] : model->buffers()) {
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_FALSE(tensor.requires_grad()) << name;
  }
}

TEST_P(EveryModel, SwitchesItsWholeTreeBetweenTrainingAndEval) {
  auto model = toy(GetParam());
  auto expect_mode = [](auto&& self, const Module& module, bool training) -> void {
    EXPECT_EQ(module.is_training(), training);
    for (const auto& [name, child] : module.children()) self(self, *child, training);
  };
  expect_mode(expect_mode, *model, true);
  model->train(false);
  expect_mode(expect_mode, *model, false);
  model->train();
  expect_mode(expect_mode, *model, true);
}

TEST(BatchNorm, MovesItsRunningValuesInTrainingOnly) {
  for (const auto& entry : registry()) {
    if (entry.name != "cnn") continue;
    auto model = toy(entry);
    const NamedTensors buffers = model->buffers();
    auto copy = [&] {
      std::vector<at::Tensor> all;
      for (const auto& [name, tensor] : buffers) all.push_back(tensor.clone());
      return all;
    };
    const auto start = copy();
    model->train(false);
    model->forward(toy_input(entry, 4));
    const auto evaluated = copy();
    model->train();
    Keyed keyed(1, 0, 4);
    model->forward(toy_input(entry, 4));
    for (size_t i = 0; i < buffers.size(); ++i) {
      EXPECT_TRUE(start[i].equal(evaluated[i])) << buffers[i].name;
      EXPECT_FALSE(start[i].equal(buffers[i].tensor)) << buffers[i].name;
    }
  }
}

}  // namespace
}  // namespace lehr::models
