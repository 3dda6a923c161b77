// Products of low precision: operands and results rounded, sums in float or better, whatever the
// CPU can multiply. The oracle is double arithmetic on the rounded operands.
#include "models/products.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>

#include <optional>

#include "models/ops.h"

namespace lehr::models {
namespace {

class Autocast {
 public:
  explicit Autocast(at::ScalarType type) {
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::set_autocast_dtype(at::kCPU, type);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }
};

class Products : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(3); }
  double unit() const { return GetParam() == at::kHalf ? 0x1p-10 : 0x1p-7; }  // spacing at 1
  at::Tensor rounded(const at::Tensor& t) const {
    return t.detach().to(GetParam()).to(at::kDouble).requires_grad_();
  }
  void expect_close(const at::Tensor& ours, const at::Tensor& exact) const {
    const at::Tensor gap = (ours.detach().to(at::kDouble) - exact.detach()).abs();
    EXPECT_LE(gap.max().item<double>(), unit() * exact.detach().abs().max().item<double>());
    EXPECT_GT(exact.detach().abs().max().item<double>(), 0);
  }
};
INSTANTIATE_TEST_SUITE_P(Types, Products, ::testing::Values(at::kBFloat16, at::kHalf));

TEST_P(Products, LinearRoundsItsOperandsAndItsResult) {
  const at::Tensor x = at::randn({3, 5, 40}).requires_grad_(),
                   w = at::randn({24, 40}).requires_grad_(), b = at::randn({24}).requires_grad_();
  at::Tensor y;
  {
    const Autocast autocast(GetParam());
    y = models::linear(x, w, b);
  }
  EXPECT_EQ(y.scalar_type(), GetParam());
  const at::Tensor xd = rounded(x), wd = rounded(w), bd = rounded(b);
  const at::Tensor exact = at::linear(xd, wd, bd);
  expect_close(y, exact);
  const at::Tensor incoming = at::randn(y.sizes()).to(GetParam());
  y.backward(incoming);
  exact.backward(incoming.to(at::kDouble));
  for (auto [ours, theirs] : {std::pair{x, xd}, {w, wd}, {b, bd}}) {
    EXPECT_EQ(ours.grad().scalar_type(), at::kFloat);
    expect_close(ours.grad(), theirs.grad());
  }
}

TEST_P(Products, ConvolutionsRoundTheirOperandsAndTheirResult) {
  const at::Tensor
      x = at::randn({2, 8, 9, 9}).contiguous(at::MemoryFormat::ChannelsLast).requires_grad_(),
      w = at::randn({16, 8, 3, 3}).requires_grad_();
  at::Tensor y;
  {
    const Autocast autocast(GetParam());
    y = models::conv2d(x, w, {}, 2, 1);
  }
  EXPECT_EQ(y.scalar_type(), GetParam());
  const at::Tensor xd = rounded(x), wd = rounded(w);
  const at::Tensor exact = at::conv2d(xd, wd, {}, 2, 1);
  expect_close(y, exact);
  const at::Tensor incoming = at::randn(y.sizes()).to(GetParam());
  y.backward(incoming);
  exact.backward(incoming.to(at::kDouble));
  expect_close(x.grad(), xd.grad());
  expect_close(w.grad(), wd.grad());
}

TEST_P(Products, WeightsOfLowPrecisionNeedNoAutocast) {
  const at::Tensor x = at::randn({6, 32}).to(GetParam()), w = at::randn({8, 32}).to(GetParam());
  const at::Tensor y = models::linear(x, w);
  EXPECT_EQ(y.scalar_type(), GetParam());
  expect_close(y, at::linear(x.to(at::kDouble), w.to(at::kDouble)));
}

TEST_P(Products, SumWhatIsLeftOfTheOperands) {
  // 1 + a quarter of the spacing is 1; without rounding first, forty quarters would be left
  at::Tensor x = at::ones({1, 80}), w = at::ones({1, 80});
  x.slice(1, 0, 40).add_(unit() / 4);
  w.slice(1, 40, 80).fill_(-1);
  const Autocast autocast(GetParam());
  EXPECT_EQ(models::linear(x, w).item<float>(), 0);
}

TEST(ProductsOfFloats, AreATensOwn) {
  const at::Tensor x = at::randn({6, 32}), w = at::randn({8, 32}), b = at::randn({8});
  EXPECT_FALSE(products_in_float(x));
  EXPECT_TRUE(models::linear(x, w, b).equal(at::linear(x, w, b)));
}

// else ATen's own loops would take them, a hundred times slower than float32
TEST_P(Products, AreFloat32sWhereOneDnnHasNone) {
  const auto has =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow(GetParam() == at::kHalf ? "mkldnn::_is_mkldnn_fp16_supported"
                                                     : "mkldnn::_is_mkldnn_bf16_supported",
                             "")
          .typed<bool()>();
  const Autocast autocast(GetParam());
  EXPECT_EQ(products_in_float(at::ones({2, 2})), !has.call());
}

TEST(LinearGeluLinear, IsOnACpuTheThreeOpsThatItNamesToTheBit) {
  const auto run = [](bool as_one, Kernels kernels, std::optional<at::ScalarType> type) {
    at::manual_seed(4);
    const at::Tensor x = at::randn({3, 7, 20}).requires_grad_(),
                     w1 = at::randn({20, 48}).requires_grad_(),
                     b1 = at::randn({48}).requires_grad_(),
                     w2 = at::randn({48, 12}).requires_grad_(),
                     b2 = at::randn({12}).requires_grad_();
    at::Tensor y;
    {
      const KernelScope scope(kernels);
      std::optional<Autocast> autocast;
      if (type) autocast.emplace(*type);
      y = as_one ? linear_gelu_linear(x, w1.t(), b1, w2.t(), b2)
                 : models::linear(bias_gelu(models::linear(x, w1.t()), b1), w2.t(), b2);
    }
    y.square().sum().backward();
    return std::vector<at::Tensor>{y, x.grad(), w1.grad(), b1.grad(), w2.grad(), b2.grad()};
  };
  for (Kernels kernels : {Kernels::kAten, Kernels::kCustom, Kernels::kCheck})
    for (std::optional<at::ScalarType> type :
         {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
      const auto one = run(true, kernels, type), three = run(false, kernels, type);
      for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(three[i])) << i;
    }
}

}  // namespace
}  // namespace lehr::models
