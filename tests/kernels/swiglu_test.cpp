// The op lehr::swiglu: ATen's silu in double defines it and its gradient.
#include <gtest/gtest.h>

#include "kernels/common/rounding.h"
#include "kernels/swiglu/swiglu_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"
#include "tests/kernels/far_memory.h"
#include "tests/kernels/swiglu_cases.h"

namespace lehr::kernels {
namespace {

Tensors inputs_of(const RowShape& shape, Float type, at::Device device) {
  return {random_tensor({shape.rows, 2 * shape.columns}, 1, type, device, 0, 3).requires_grad_()};
}

Tensors ours(const Tensors& in) { return {swiglu(in[0])}; }
Tensors by_aten(const Tensors& in) {
  const std::vector<at::Tensor> halves = in[0].chunk(2, -1);
  return {at::silu(halves[0]) * halves[1]};
}

class SwiGluOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, SwiGluOp, testing::Values(at::kCPU, at::kCUDA), device_name);

TEST_P(SwiGluOp, AgreesWithAtenBothWaysForEveryShapeAndType) {
  for (const RowShape& shape : swiglu_shapes())
    for (Float type : all_float_types())
      expect_agreement(ours, by_aten, inputs_of(shape, type, device()),
                       shape.name() + " " + name_of(type));
}

TEST_P(SwiGluOp, IsRightForHardGates) {
  const std::vector<float> gates = {0,   -0.0f, 1e-30f, 30,  -30,  87,   -87,  88.8f,
                                    -89, 100,   -100,   104, -104, 1e4f, -1e4f};
  std::vector<float> values = gates;
  values.insert(values.end(), gates.size(), 2.0f);
  const at::Tensor x = at::tensor(values, at::kFloat).to(device()).view({1, -1}).requires_grad_();
  const Tensors actual = run_both_ways(ours, {x}, false);
  const Tensors exact = run_both_ways(by_aten, {x}, true);
  // below 1e-36 a result may vanish: e^-g overflows
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_EQ(difference(doubles(actual[i]), doubles(exact[i]), {1e-40, 3e-6}), "") << i;
  const at::Tensor huge = at::tensor({3e38f, -3e38f, 1.0f, 1.0f}).to(device()).requires_grad_();
  const at::Tensor out = swiglu(huge);
  out.sum().backward();
  EXPECT_EQ(difference(doubles(out), std::vector<double>{3e38f, 0}, {0, 0}), "");
  EXPECT_EQ(difference(doubles(huge.grad()), std::vector<double>{1, 0, 3e38f, 0}, {0, 0}), "");
}

TEST_P(SwiGluOp, TakesAnyStridesAndLeadingDimensions) {
  const auto transposed = [](const Computation& all) {
    return [all](const Tensors& t) { return all({t[0].view({2, 3, 40}).transpose(0, 1)}); };
  };
  const Tensors in = {random_tensor({6, 40}, 1, Float::kFloat32, device()).requires_grad_()};
  expect_agreement(transposed(ours), transposed(by_aten), in, "transposed");
}

TEST_P(SwiGluOp, NamesWhatIsWrongWithItsArgument) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, device());
  expect_message([&] { swiglu(in[0].slice(1, 1)); },
                 "gate_up must have an even last dimension of 2 or more, not [4, 11]");
  expect_message([&] { swiglu(in[0].to(at::kDouble)); },
                 "swiglu: gate_up must be float32, bfloat16 or float16, not Double");
}

TEST(SwiGluCpu, AgreesWithAtenAtEveryVectorWidth) {
  with_every_simd_level([](const std::string& level) {
    for (const RowShape& shape : swiglu_shapes())
      for (Float type : all_float_types())
        expect_agreement(ours, by_aten, inputs_of(shape, type, at::kCPU), shape.name() + level);
  });
}

TEST(SwiGluCpu, GivesTheSameBitsOnOneAndTwoThreads) {
  for (Float type : all_float_types())
    expect_same_bits_on_one_and_two_threads(ours, inputs_of({1000, 129}, type, at::kCPU));
}

TEST(SwiGluCpu, ReachesRowsBeyondTwoToTheThirtyFirstElements) {
  constexpr int64_t kColumns = 1024, kRows = (int64_t{1} << 22) + 3;  // 2^32 elements and 3 rows
  const FarMemory gate_up(kRows * kColumns * 4), output(kRows * kColumns * 2);
  BFloat16* const row = gate_up.as<BFloat16>() + (kRows - 1) * 2 * kColumns;
  for (int64_t c = 0; c < 2 * kColumns; ++c) row[c] = rounded<BFloat16>(c < kColumns ? 99 : 2);
  swiglu_cpu_simd({gate_up.as<void>(), output.as<void>(), kRows, kColumns, Float::kBFloat16},
                  kRows - 1, kRows);
  for (int64_t c = 0; c < kColumns; ++c)
    ASSERT_EQ(widened(output.as<BFloat16>()[(kRows - 1) * kColumns + c]), 198) << "column " << c;
}

TEST(SwiGluMeta, HasTheShapesOfTheRealOne) {
  for (const RowShape& shape : swiglu_shapes())
    expect_meta_like_the_real_one(ours, inputs_of(shape, Float::kBFloat16, at::kCPU));
}

TEST(SwiGluAutograd, RefusesASecondDerivativeAndRecordsNothingWithoutAFirst) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, at::kCPU);
  expect_no_second_derivative(ours, in[0]);
  const at::NoGradGuard guard;
  EXPECT_FALSE(swiglu(in[0]).requires_grad());
}

}  // namespace
}  // namespace lehr::kernels
