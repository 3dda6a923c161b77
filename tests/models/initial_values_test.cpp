// Initial values against the formulas of PyTorch's reset_parameters and torchvision's ResNet; the
// same against what PyTorch really draws is in torchvision_test.cpp.
#include "models/layers.h"
#include "tests/models/toy.h"

namespace lehr::models {
namespace {

const at::TensorOptions kFloat = at::TensorOptions().dtype(at::kFloat);

at::Tensor find(const Module& module, const std::string& name) {
  for (const auto& [other, tensor] : module.parameters())
    if (other == name) return tensor.detach().to(at::kDouble);
  throw std::runtime_error("no parameter " + name);
}

// Mean 0 and the given deviation, within 5 standard errors of a sample of this size.
void expect_moments(const at::Tensor& values, double deviation, double kurtosis) {
  const double n = static_cast<double>(values.numel());
  EXPECT_NEAR(values.mean().item<double>(), 0, 5 * deviation / std::sqrt(n));
  const double error = 5 * deviation * std::sqrt((kurtosis - 1) / 4 / n);
  EXPECT_NEAR(values.std().item<double>(), deviation, error);
}

void expect_uniform(const at::Tensor& values, double bound) {
  expect_moments(values, bound / std::sqrt(3), 1.8);
  EXPECT_LE(values.abs().max().item<double>(), bound * (1 + 1e-6));
  EXPECT_GT(values.abs().max().item<double>(), bound * (1 - 20.0 / values.numel()));
}

TEST(InitialValues, OfALinearLayerAreUniformWithinOneOverRootOfInputs) {
  Linear layer(Scope(kFloat, 1), 100, 300);
  expect_uniform(find(layer, "weight"), 0.1);
  expect_uniform(find(layer, "bias"), 0.1);
}

TEST(InitialValues, OfAPlainConvolutionAreUniformWithinOneOverRootOfFanIn) {
  ConvShape shape;
  shape.in = 16, shape.out = 64;
  Conv2d layer(Scope(kFloat, 1), shape);
  expect_uniform(find(layer, "weight"), 1 / 12.0);
  expect_uniform(find(layer, "bias"), 1 / 12.0);
}

TEST(InitialValues, OfAResnetConvolutionAreNormalByFanOut) {
  ConvShape shape;
  shape.in = 16, shape.out = 64, shape.bias = false, shape.init = ConvInit::kFanOut;
  Conv2d layer(Scope(kFloat, 1), shape);
  const auto weight = find(layer, "weight");
  expect_moments(weight, std::sqrt(2.0 / (64 * 9)), 3);
  // a normal has 4.55 % beyond two deviations
  const double beyond =
      weight.abs().gt(2 * std::sqrt(2.0 / 576)).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(beyond, 0.0455, 0.01);
  EXPECT_EQ(layer.parameters().size(), 1);
}

TEST(InitialValues, OfABatchNormAreOnesAndZeros) {
  BatchNorm2d layer(Scope(kFloat, 1), 5);
  EXPECT_TRUE(find(layer, "weight").equal(at::ones({5}, at::kDouble)));
  EXPECT_TRUE(find(layer, "bias").equal(at::zeros({5}, at::kDouble)));
  ASSERT_EQ(layer.buffers().size(), 3);
  EXPECT_EQ(layer.buffers()[2].name, "num_batches_tracked");
  EXPECT_EQ(layer.buffers()[2].tensor.scalar_type(), at::kLong);
}

TEST(InitialValues, DependOnTheNameAndNotOnTheOrderOfMaking) {
  const Scope scope(kFloat, 1);
  Linear a(scope.inside("a"), 8, 8), b(scope.inside("b"), 8, 8), again(scope.inside("a"), 8, 8);
  EXPECT_TRUE(find(a, "weight").equal(find(again, "weight")));
  EXPECT_FALSE(find(a, "weight").equal(find(b, "weight")));
  EXPECT_FALSE(find(a, "weight").equal(find(a, "bias").expand({8, 8})));
}

}  // namespace
}  // namespace lehr::models
