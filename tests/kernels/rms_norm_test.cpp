// The ops lehr::rms_norm and lehr::add_rms_norm: ATen's in double defines both and their
// gradients.
#include <gtest/gtest.h>

#include "kernels/common/rounding.h"
#include "kernels/rms_norm/rms_norm_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"
#include "tests/kernels/far_memory.h"
#include "tests/kernels/layer_norm_cases.h"

namespace lehr::kernels {
namespace {

constexpr double kEps = 1e-5;

// x, residual, weight
Tensors inputs_of(const RowShape& shape, Float type, Float parameter_type, at::Device device) {
  const auto make = [&](at::IntArrayRef sizes, uint64_t seed, Float dtype, float mean) {
    return random_tensor(sizes, seed, dtype, device, mean).requires_grad_();
  };
  return {make({shape.rows, shape.columns}, 1, type, 0.5f),
          make({shape.rows, shape.columns}, 2, type, 0),
          make({shape.columns}, 3, parameter_type, 1)};
}

Tensors ours(const Tensors& in) { return {rms_norm(in[0], in[1], kEps)}; }
Tensors by_aten(const Tensors& in) { return {at::rms_norm(in[0], {in[0].size(-1)}, in[1], kEps)}; }
Tensors ours_added(const Tensors& in) {
  const auto [normal, sum] = add_rms_norm(in[0], in[1], in[2], kEps);
  return {normal, sum};
}
// the sum is rounded to `type`, which its gradient does not see
Computation added_by_aten(Float type) {
  return [type](const Tensors& in) -> Tensors {
    const at::Tensor exact = in[0] + in[1];
    const at::Tensor sum =
        exact + (exact.to(at::kFloat).to(scalar_type(type)).to(at::kDouble) - exact).detach();
    return {at::rms_norm(sum, {sum.size(-1)}, in[2], kEps), sum};
  };
}

std::vector<Float> parameter_types(Float type) {
  if (type == Float::kFloat32) return {type};
  return {Float::kFloat32, type};
}

class RmsNormOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, RmsNormOp, testing::Values(at::kCPU, at::kCUDA), device_name);

TEST_P(RmsNormOp, AgreesWithAtenBothWaysForEveryShapeAndType) {
  for (const RowShape& shape : norm_shapes())
    for (Float type : all_float_types())
      for (Float parameter_type : parameter_types(type)) {
        const Tensors in = inputs_of(shape, type, parameter_type, device());
        const std::string what =
            shape.name() + " " + name_of(type) + " weights " + name_of(parameter_type);
        expect_agreement(ours, by_aten, {in[0], in[2]}, what);
        expect_agreement(ours_added, added_by_aten(type), in, "added " + what);
      }
}

TEST_P(RmsNormOp, AddsWhatFlowsIntoTheSumAloneOrNotAtAll) {
  const Tensors in = inputs_of({6, 40}, Float::kFloat32, Float::kFloat32, device());
  for (size_t used : {0, 1}) {
    const auto only = [used](const Computation& all) {
      return [all, used](const Tensors& t) -> Tensors {
        // the weight reaches the graph in both
        const Tensors out = all(t);
        return {out[used] * 2, t[2] * 1};
      };
    };
    expect_agreement(only(ours_added), only(added_by_aten(Float::kFloat32)), in,
                     "output " + std::to_string(used));
  }
}

TEST_P(RmsNormOp, TakesAnyStridesAndLeadingDimensions) {
  const Tensors in = inputs_of({6, 40}, Float::kFloat32, Float::kFloat32, device());
  const auto transposed = [](const Computation& all) {
    return [all](const Tensors& t) -> Tensors {
      return all({t[0].view({2, 3, 40}).transpose(0, 1), t[1].flip(0)});
    };
  };
  expect_agreement(transposed(ours), transposed(by_aten), {in[0], in[2]}, "transposed");
}

TEST_P(RmsNormOp, GivesTheSameBitsTwice) {
  const Tensors in = inputs_of({700, 96}, Float::kBFloat16, Float::kFloat32, device());
  const Tensors one = run_both_ways(ours_added, in, false);
  const Tensors two = run_both_ways(ours_added, in, false);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i]));
}

TEST_P(RmsNormOp, NamesWhatIsWrongWithItsArguments) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, device());
  const at::Tensor &x = in[0], &weight = in[2];
  expect_message([&] { rms_norm(x.to(at::kDouble), weight, kEps); },
                 "rms_norm: x must be float32, bfloat16 or float16, not Double");
  expect_message([&] { rms_norm(x, weight.slice(0, 0, 5), kEps); }, "weight must be [6], not [5]");
  expect_message([&] { rms_norm(x, weight.to(at::kHalf), kEps); },
                 "weight must be float32 or Float as x is, not Half");
  expect_message(
      [&] {
        rms_norm(at::empty({3, 0}, x.options()), weight, kEps);
      },
      "last dimension of 1 or more");
  expect_message([&] { add_rms_norm(x, in[1].slice(0, 0, 3), weight, kEps); },
                 "add_rms_norm: residual must be Float [4, 6]");
}

TEST(RmsNormCpu, AgreesWithAtenAtEveryVectorWidth) {
  with_every_simd_level([](const std::string& level) {
    for (const RowShape& shape : norm_shapes())
      for (Float type : all_float_types())
        expect_agreement(ours_added, added_by_aten(type),
                         inputs_of(shape, type, Float::kFloat32, at::kCPU),
                         shape.name() + " " + name_of(type) + level);
  });
}

TEST(RmsNormCpu, GivesTheSameBitsOnOneAndTwoThreads) {
  for (Float type : all_float_types())
    expect_same_bits_on_one_and_two_threads(
        ours_added, inputs_of({1000, 129}, type, Float::kFloat32, at::kCPU));
}

TEST(RmsNormCpu, ReachesRowsBeyondTwoToTheThirtyFirstElements) {
  constexpr int64_t kColumns = 1024, kRows = (int64_t{1} << 22) + 3;  // 2^32 elements and 3 rows
  const FarMemory x(kRows * kColumns * 2), output(kRows * kColumns * 2), rstd(kRows * 4);
  const std::vector<float> weight(kColumns, 1);
  BFloat16* const row = x.as<BFloat16>() + (kRows - 1) * kColumns;
  for (int64_t c = 0; c < kColumns; ++c) row[c] = rounded<BFloat16>(c % 2 ? 2.0f : -2.0f);
  RmsNorm args{
      x.as<void>(), nullptr, weight.data(),    output.as<void>(), nullptr, rstd.as<float>(), kRows,
      kColumns,     0,       Float::kBFloat16, Float::kFloat32};
  rms_norm_cpu_simd(args, kRows - 1, kRows);
  const BFloat16* const normal = output.as<BFloat16>() + (kRows - 1) * kColumns;
  for (int64_t c = 0; c < kColumns; ++c)
    ASSERT_EQ(widened(normal[c]), c % 2 ? 1.0f : -1.0f) << "column " << c;
  EXPECT_EQ(rstd.as<float>()[kRows - 1], 0.5f);
}

TEST(RmsNormMeta, HasTheShapesOfTheRealOne) {
  for (const RowShape& shape : norm_shapes())
    for (Float type : all_float_types())
      expect_meta_like_the_real_one(ours_added, inputs_of(shape, type, type, at::kCPU));
}

TEST(RmsNormAutograd, RefusesASecondDerivativeAndRecordsNothingWithoutAFirst) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, at::kCPU);
  expect_no_second_derivative([&](const Tensors& t) { return ours({t[0], in[2]}); }, in[0]);
  const at::NoGradGuard guard;
  EXPECT_FALSE(ours({in[0], in[2]})[0].requires_grad());
}

TEST(RmsNormAutograd, RunsInInferenceMode) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, at::kCPU);
  const at::Tensor expected = ours({in[0], in[2]})[0];
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(ours({in[0], in[2]})[0], expected));
}

}  // namespace
}  // namespace lehr::kernels
