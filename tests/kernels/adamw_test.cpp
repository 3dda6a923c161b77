// adamw_step and global_norm: ATen's fused AdamW and norms define.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/adamw/adamw_op.h"
#include "tests/kernels/adamw_cases.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"

namespace lehr::kernels {
namespace {

using Tensors = std::vector<at::Tensor>;

const std::vector<std::vector<int64_t>> kShapes = {{3, 5}, {1},       {},
                                                   {0, 4}, {70, 300}, {2, 3, 4, 5}};

Tensors random(at::Device device, double scale, at::ScalarType type = at::kFloat) {
  Tensors tensors;
  for (const auto& shape : kShapes) tensors.push_back((at::randn(shape) * scale).to(device, type));
  return tensors;
}
Tensors zeros(at::Device device, at::ScalarType type = at::kFloat) {
  return random(device, 0, type);
}
Tensors clones(const Tensors& tensors) {
  Tensors result;
  for (const auto& t : tensors) result.push_back(t.clone());
  return result;
}

AdamWGroup group_of(const Tensors& parameters, double lr, double weight_decay) {
  const at::Device device = parameters[0].device();
  return {clones(parameters), {}, zeros(device), zeros(device), {}, {}, lr, weight_decay};
}

bool same(const Tensors& a, const Tensors& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!at::equal(a[i], b[i])) return false;
  return a.size() == b.size();
}

double reference_norm(const Tensors& tensors) {
  double sum = 0;
  for (const auto& t : tensors) sum += t.to(at::kDouble).square().sum().item<double>();
  return std::sqrt(sum);
}

class AdamWOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, AdamWOp, testing::Values(at::kCPU, at::kCUDA), device_name);

// two groups, a loss scale, clipping that acts on some steps only, an average and a 16-bit copy
void expect_a_hundred_steps(at::Device device, at::ScalarType gradient_type,
                            at::ScalarType copy_type) {
  at::manual_seed(3);
  const Tensors start = random(device, 1);
  AdamWGroup ours[2] = {group_of(start, 3e-3, 0.1), group_of(start, 1e-3, 0)};
  AdamWGroup atens[2] = {group_of(start, 3e-3, 0.1), group_of(start, 1e-3, 0)};
  for (auto& group : ours) {
    group.averages = clones(start);
    group.copies = zeros(device, copy_type);
  }
  for (auto& group : atens) group.averages = clones(start);
  AdamWOptions options;
  options.divide = 8;
  options.max_norm = 150;
  options.ema_decay = 0.99;
  int clipped = 0;
  for (int step = 1; step <= 100; ++step) {
    options.step = step;
    Tensors all;
    for (int g = 0; g < 2; ++g) {
      // from near nothing to near the limit and beyond
      ours[g].gradients = random(device, 8 * (step % 10) / 7.0, gradient_type);
      atens[g].gradients.clear();
      for (const auto& t : ours[g].gradients) atens[g].gradients.push_back(t.to(at::kFloat));
      all.insert(all.end(), atens[g].gradients.begin(), atens[g].gradients.end());
    }
    const double norm = reference_norm(all) / options.divide;
    EXPECT_NEAR(adamw_step({ours[0], ours[1]}, options).item<double>(), norm, 1e-12 * norm);
    const double clip = std::max(1.0, (norm + 1e-6) / options.max_norm);
    clipped += clip > 1;
    for (auto& group : atens) {
      const auto count = at::full({}, static_cast<double>(step), group.parameters[0].options());
      at::_fused_adamw_(group.parameters, group.gradients, group.exp_avg, group.exp_avg_sq, {},
                        Tensors(group.parameters.size(), count), group.lr, options.beta1,
                        options.beta2, group.weight_decay, options.eps, false, false,
                        at::full({}, options.divide * clip, count.options()));
      at::_foreach_lerp_(group.averages, group.parameters, 1 - options.ema_decay);
    }
  }
  EXPECT_GT(clipped, 20);
  EXPECT_LT(clipped, 80);
  for (int g = 0; g < 2; ++g) {
    for (size_t i = 0; i < start.size(); ++i) {
      const auto difference = [&](const Tensors& a, const Tensors& b) {
        return a[i].numel() ? (a[i] - b[i]).abs().max().item<double>() : 0.0;
      };
      EXPECT_LT(difference(ours[g].parameters, atens[g].parameters), 1e-6) << i;
      EXPECT_LT(difference(ours[g].exp_avg, atens[g].exp_avg), 1e-6) << i;
      EXPECT_LT(difference(ours[g].exp_avg_sq, atens[g].exp_avg_sq), 1e-6) << i;
      EXPECT_LT(difference(ours[g].averages, atens[g].averages), 1e-6) << i;
      EXPECT_TRUE(at::equal(ours[g].copies[i], ours[g].parameters[i].to(copy_type))) << i;
      if (start[i].numel()) {
        EXPECT_FALSE(at::equal(ours[g].parameters[i], start[i]));
      }
    }
  }
}

TEST_P(AdamWOp, AgreesWithAtenOverAHundredSteps) {
  expect_a_hundred_steps(device(), at::kFloat, at::kBFloat16);
  expect_a_hundred_steps(device(), at::kBFloat16, at::kBFloat16);
  expect_a_hundred_steps(device(), at::kHalf, at::kHalf);
}

TEST_P(AdamWOp, TakesTheNormThatGlobalNormFound) {
  at::manual_seed(4);
  const Tensors start = random(device(), 1), gradients = random(device(), 3);
  AdamWGroup one = group_of(start, 1e-2, 0.1), two = group_of(start, 1e-2, 0.1);
  one.gradients = two.gradients = gradients;
  AdamWOptions options;
  options.divide = 4;
  options.max_norm = 1;
  const double norm = adamw_step({one}, options).item<double>();
  options.norm = global_norm(gradients).item<double>() / options.divide;
  EXPECT_EQ(*options.norm, norm);
  EXPECT_EQ(adamw_step({two}, options).item<double>(), norm);
  EXPECT_TRUE(same(one.parameters, two.parameters));
}

TEST_P(AdamWOp, MovesNothingWhereAGradientIsNotFinite) {
  const Tensors start = random(device(), 1);
  for (float poison : {INFINITY, -INFINITY, NAN}) {
    AdamWGroup group = group_of(start, 1e-2, 0.1);
    group.averages = clones(start);
    group.gradients = random(device(), 1);
    group.gradients[4].view({-1})[20999].fill_(poison);
    EXPECT_FALSE(std::isfinite(adamw_step({group}, {}).item<double>()));
    EXPECT_TRUE(same(group.parameters, start));
    EXPECT_TRUE(same(group.exp_avg, zeros(device())));
    EXPECT_TRUE(same(group.exp_avg_sq, zeros(device())));
    EXPECT_TRUE(same(group.averages, start));
  }
}

TEST_P(AdamWOp, LeavesParametersWithoutAGradientAlone) {
  const Tensors start = random(device(), 1);
  AdamWGroup group = group_of(start, 1e-2, 0.1);
  group.gradients = random(device(), 1);
  group.gradients[4] = at::Tensor();
  adamw_step({group}, {});
  EXPECT_TRUE(at::equal(group.parameters[4], start[4]));
  EXPECT_FALSE(at::equal(group.parameters[0], start[0]));
  group.gradients.assign(start.size(), at::Tensor());
  EXPECT_EQ(adamw_step({group}, {}).item<double>(), 0);
}

TEST_P(AdamWOp, TakesGradientsOfOtherStrides) {
  const auto weight =
      at::randn({8, 3, 5, 5}).to(device()).contiguous(at::MemoryFormat::ChannelsLast);
  const auto gradient = at::randn({8, 3, 5, 5}).to(device());
  const auto step = [&](const at::Tensor& g) {
    AdamWGroup group;
    group.parameters = {weight.clone()};
    group.gradients = {g};
    group.exp_avg = {at::zeros_like(weight)};
    group.exp_avg_sq = {at::zeros_like(weight)};
    adamw_step({group}, {});
    return group.parameters[0];
  };
  EXPECT_TRUE(at::equal(step(gradient), step(gradient.contiguous(at::MemoryFormat::ChannelsLast))));
}

TEST_P(AdamWOp, RaisesTheVersionOfWhatItChanges) {
  AdamWGroup group = group_of(random(device(), 1), 1e-2, 0);
  group.gradients = random(device(), 1);
  const auto before = group.parameters[0]._version();
  adamw_step({group}, {});
  EXPECT_GT(group.parameters[0]._version(), before);
}

TEST_P(AdamWOp, GlobalNormIsThatOfAllElements) {
  at::manual_seed(5);
  for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Tensors tensors = random(device(), 2, type);
    const double expected = reference_norm(tensors);
    EXPECT_NEAR(global_norm(tensors).item<double>(), expected, 1e-13 * expected) << type;
  }
  EXPECT_EQ(global_norm({}).item<double>(), 0);
  EXPECT_EQ(global_norm({at::zeros({0}).to(device())}).item<double>(), 0);
  // squares beyond a float's range, and below it
  EXPECT_NEAR(global_norm({at::full({2}, 3e38).to(device())}).item<double>(), 3e38 * M_SQRT2, 1e33);
  EXPECT_NEAR(global_norm({at::full({4}, 1e-30).to(device())}).item<double>(), 2e-30, 1e-36);
  const auto slice = at::randn({6, 8}).to(device()).slice(1, 0, 8, 2);
  EXPECT_NEAR(global_norm({slice}).item<double>(), reference_norm({slice}), 1e-12);
}

TEST(AdamWThreads, GivesTheSameBitsOnOneAndTwoThreads) {
  at::manual_seed(6);
  const auto weight = at::randn({300, 1001}), gradient = at::randn({300, 1001});
  AdamWGroup groups[2];
  double norms[2];
  const int before = at::get_num_threads();
  AdamWOptions options;
  options.max_norm = 1;
  for (int threads : {1, 2}) {
    at::set_num_threads(threads);
    AdamWGroup& group = groups[threads - 1];
    group.parameters = {weight.clone()};
    group.gradients = {gradient};
    group.exp_avg = {at::zeros_like(weight)};
    group.exp_avg_sq = {at::zeros_like(weight)};
    norms[threads - 1] = adamw_step({group}, options).item<double>();
  }
  at::set_num_threads(before);
  EXPECT_EQ(norms[0], norms[1]);
  EXPECT_TRUE(at::equal(groups[0].parameters[0], groups[1].parameters[0]));
}

TEST(AdamWMeta, GivesAScalarAndChecksShapes) {
  const auto meta = at::TensorOptions(at::kMeta).dtype(at::kFloat);
  AdamWGroup group;
  group.parameters = group.gradients = group.exp_avg = group.exp_avg_sq = {at::empty({3, 4}, meta)};
  const auto norm = adamw_step({group}, {});
  EXPECT_TRUE(norm.is_meta() && norm.dim() == 0 && norm.scalar_type() == at::kDouble);
  EXPECT_TRUE(global_norm({at::empty({3}, meta)}).is_meta());
}

TEST(AdamWArguments, AreCheckedByName) {
  const auto t = at::ones({2, 3});
  const auto expect = [&](const AdamWGroup& group, const AdamWOptions& options,
                          const std::string& words) {
    expect_message([&] { adamw_step({group}, options); }, words);
  };
  const AdamWGroup good = {{t.clone()}, {t}, {t.clone()}, {t.clone()}, {}, {}, 1e-3, 0};
  expect(good, {}, "accepted");
  AdamWGroup bad = good;
  bad.exp_avg = {};
  expect(bad, {}, "lists of different lengths for 1 parameters");
  bad = good;
  bad.copies = {t, t};
  expect(bad, {}, "copies and averages must be none, or one for each of 1");
  bad = good;
  bad.parameters = {t.to(at::kDouble)};
  expect(bad, {}, "parameter 0 must be dense float32");
  bad = good;
  bad.gradients = {t.to(at::kDouble)};
  expect(bad, {}, "gradient must be float32, bfloat16 or float16");
  bad = good;
  bad.gradients = {at::ones({3, 2})};
  expect(bad, {}, "gradient 0 has another shape");
  bad = good;
  bad.exp_avg_sq = {at::ones({3, 2}).t()};
  expect(bad, {}, "exp_avg_sq 0 has shape [2, 3] and strides");
  bad = good;
  bad.averages = {t.to(at::kBFloat16)};
  expect(bad, {}, "average 0 must be float32");
  AdamWOptions options;
  options.step = 0;
  expect(good, options, "step counts from 1");
  options = {};
  options.divide = 0;
  expect(good, options, "divide must be positive");
  options = {};
  options.beta2 = 1;
  expect(good, options, "betas must be in [0, 1)");
  options = {};
  options.max_norm = -1;
  expect(good, options, "max_norm must be 0");
  EXPECT_THROW(global_norm({t.to(at::kLong)}), c10::Error);
}

}  // namespace
}  // namespace lehr::kernels
