// The ops lehr::gelu and lehr::bias_gelu: ATen's tanh GELU in double defines both and their
// gradients.
#include <gtest/gtest.h>

#include "kernels/common/rounding.h"
#include "kernels/gelu/gelu_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"
#include "tests/kernels/far_memory.h"
#include "tests/kernels/gelu_cases.h"

namespace lehr::kernels {
namespace {

// x, bias
Tensors inputs_of(const RowShape& shape, Float type, Float bias_type, at::Device device) {
  return {random_tensor({shape.rows, shape.columns}, 1, type, device, 0, 2).requires_grad_(),
          random_tensor({shape.columns}, 2, bias_type, device).requires_grad_()};
}

Tensors ours(const Tensors& in) { return {kernels::gelu(in[0])}; }
Tensors by_aten(const Tensors& in) { return {at::gelu(in[0], "tanh")}; }
Tensors ours_with_bias(const Tensors& in) { return {bias_gelu(in[0], in[1])}; }
Tensors by_aten_with_bias(const Tensors& in) { return {at::gelu(in[0] + in[1], "tanh")}; }

// the same without 1 + tanh(u), which cancels for negative numbers in double, too
Tensors without_cancelling(const Tensors& in) {
  const at::Tensor v = in.size() == 2 ? in[0] + in[1] : in[0];
  return {v * at::sigmoid(1.5957691216057308 * (v + 0.044715 * v * v * v))};
}

class GeluOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, GeluOp, testing::Values(at::kCPU, at::kCUDA), device_name);

TEST_P(GeluOp, AgreesWithAtenBothWaysForEveryShapeAndType) {
  for (const RowShape& shape : gelu_shapes())
    for (Float type : all_float_types())
      for (Float bias_type : {Float::kFloat32, type}) {
        const Tensors in = inputs_of(shape, type, bias_type, device());
        const std::string what = shape.name() + " " + name_of(type) + " bias " + name_of(bias_type);
        expect_agreement(ours, by_aten, {in[0]}, what);
        expect_agreement(ours_with_bias, by_aten_with_bias, in, what);
      }
}

// the tanh form cancels for negative numbers; ours keeps its relative accuracy
TEST_P(GeluOp, IsRightToARelativeErrorWhereItIsSmall) {
  at::Tensor x = at::arange(-8, 8, 0.001, at::kFloat).to(device()).requires_grad_();
  const Tensors actual = run_both_ways(ours, {x}, false);
  const Tensors exact = run_both_ways(without_cancelling, {x}, true);
  // u is rounded, and e^-2u multiplies its error by up to 2u = 50
  EXPECT_EQ(difference(doubles(actual[0]), doubles(exact[0]), {1e-30, 1e-5}), "");
}

TEST_P(GeluOp, IsRightForHardValues) {
  const at::Tensor x = at::tensor(gelu_hard_values(), at::kFloat).to(device()).requires_grad_();
  const at::Tensor finite = x.masked_select(x.abs() < 1e30).detach().requires_grad_();
  const at::Tensor no_bias = at::zeros_like(finite).requires_grad_();
  const auto expect_close_enough = [](const Tensors& actual, const Tensors& exact) {
    // e^-2u multiplies the error of u; the slope cancels near its zero at -0.75
    EXPECT_EQ(difference(doubles(actual[0]), doubles(exact[0]), {1e-47, 2e-5}), "");
    EXPECT_EQ(difference(doubles(actual[1]), doubles(exact[1]), {3e-7, 2e-5}), "");
  };
  expect_close_enough(run_both_ways(ours, {finite}, false),
                      run_both_ways(without_cancelling, {finite}, true));
  expect_close_enough(run_both_ways(ours_with_bias, {finite, no_bias}, false),
                      run_both_ways(without_cancelling, {finite, no_bias}, true));
  // what the limits are, which ATen misses: x, 0 and their slopes 1, 0
  const at::Tensor huge =
      at::tensor({3e38f, -3e38f, std::numeric_limits<float>::infinity(), std::nanf("")})
          .to(device())
          .requires_grad_();
  const at::Tensor out = kernels::gelu(huge);
  out.sum().backward();
  EXPECT_EQ(difference(doubles(out), std::vector<double>{3e38f, 0, INFINITY, NAN}, {0, 0}), "");
  EXPECT_EQ(difference(doubles(huge.grad()), std::vector<double>{1, 0, 1, NAN}, {1e-30, 0}), "");
}

TEST_P(GeluOp, TakesAnyStridesAndNoDimensions) {
  const Tensors in = inputs_of({6, 40}, Float::kFloat32, Float::kFloat32, device());
  const auto every_second = [](const at::Tensor& x) { return x.t().slice(0, 1, 40, 2); };
  const auto strided = [&](const Computation& all) {
    return [&, all](const Tensors& t) { return all({every_second(t[0])}); };
  };
  const auto strided_with_bias = [&](const Computation& all) {
    return [&, all](const Tensors& t) {
      return all({every_second(t[0]), t[1].slice(0, 0, 12, 2)});
    };
  };
  expect_agreement(strided(ours), strided(by_aten), {in[0]}, "strided");
  expect_agreement(strided_with_bias(ours_with_bias), strided_with_bias(by_aten_with_bias), in,
                   "strided");
  expect_agreement(ours, by_aten, {in[0].detach()[0][0].requires_grad_()}, "a number");
}

TEST_P(GeluOp, GivesTheSameBitsTwice) {
  const Tensors in = inputs_of({700, 96}, Float::kBFloat16, Float::kFloat32, device());
  const Tensors one = run_both_ways(ours_with_bias, in, false);
  const Tensors two = run_both_ways(ours_with_bias, in, false);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i]));
}

TEST_P(GeluOp, NamesWhatIsWrongWithItsArguments) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, device());
  expect_message([&] { kernels::gelu(in[0].to(at::kDouble)); },
                 "gelu: x must be float32, bfloat16 or float16, not Double");
  expect_message([&] { bias_gelu(in[0], in[1].slice(0, 1)); }, "bias must be [6], not [5]");
  expect_message([&] { bias_gelu(in[0], in[1].to(at::kHalf)); },
                 "bias_gelu: bias must be float32 or Float as x is, not Half");
}

TEST(GeluCpu, AgreesWithAtenAtEveryVectorWidth) {
  with_every_simd_level([](const std::string& level) {
    for (const RowShape& shape : gelu_shapes())
      for (Float type : all_float_types()) {
        const Tensors in = inputs_of(shape, type, Float::kFloat32, at::kCPU);
        expect_agreement(ours, by_aten, {in[0]}, shape.name() + level);
        expect_agreement(ours_with_bias, by_aten_with_bias, in, shape.name() + level);
      }
  });
}

TEST(GeluCpu, GivesTheSameBitsOnOneAndTwoThreads) {
  for (Float type : all_float_types()) {
    const Tensors in = inputs_of({1000, 129}, type, Float::kFloat32, at::kCPU);
    expect_same_bits_on_one_and_two_threads(ours_with_bias, in);
    expect_same_bits_on_one_and_two_threads(ours, {in[0]});
  }
}

TEST(GeluCpu, ReachesRowsBeyondTwoToTheThirtyFirstElements) {
  constexpr int64_t kColumns = 1024, kRows = (int64_t{1} << 22) + 3;  // 2^32 elements and 3 rows
  const FarMemory x(kRows * kColumns * 2), output(kRows * kColumns * 2);
  const std::vector<float> bias(kColumns, 1);
  BFloat16* const row = x.as<BFloat16>() + (kRows - 1) * kColumns;
  for (int64_t c = 0; c < kColumns; ++c) row[c] = rounded<BFloat16>(99);
  gelu_cpu_simd({x.as<void>(), bias.data(), output.as<void>(), kRows, kColumns, Float::kBFloat16,
                 Float::kFloat32},
                kRows - 1, kRows);
  for (int64_t c = 0; c < kColumns; ++c)
    ASSERT_EQ(widened(output.as<BFloat16>()[(kRows - 1) * kColumns + c]), 100) << "column " << c;
}

TEST(GeluMeta, HasTheShapesOfTheRealOne) {
  for (const RowShape& shape : gelu_shapes()) {
    const Tensors in = inputs_of(shape, Float::kBFloat16, Float::kFloat32, at::kCPU);
    expect_meta_like_the_real_one(ours, {in[0]});
    expect_meta_like_the_real_one(ours_with_bias, in);
  }
}

TEST(GeluAutograd, RefusesASecondDerivativeAndRecordsNothingWithoutAFirst) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, at::kCPU);
  expect_no_second_derivative(ours, in[0]);
  const at::NoGradGuard guard;
  EXPECT_FALSE(kernels::gelu(in[0]).requires_grad());
  EXPECT_FALSE(bias_gelu(in[0], in[1]).requires_grad());
}

}  // namespace
}  // namespace lehr::kernels
