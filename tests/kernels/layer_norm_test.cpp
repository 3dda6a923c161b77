// The ops lehr::layer_norm and lehr::add_layer_norm: ATen's layer norm in double defines both and
// their gradients.
#include <gtest/gtest.h>

#include "kernels/common/rounding.h"
#include "kernels/layer_norm/layer_norm_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"
#include "tests/kernels/far_memory.h"
#include "tests/kernels/layer_norm_cases.h"

namespace lehr::kernels {
namespace {

constexpr double kEps = 1e-5;

// x, residual, weight, bias
Tensors inputs_of(const RowShape& shape, Float type, Float parameter_type, at::Device device) {
  const auto make = [&](at::IntArrayRef sizes, uint64_t seed, Float dtype, float mean) {
    return random_tensor(sizes, seed, dtype, device, mean).requires_grad_();
  };
  return {make({shape.rows, shape.columns}, 1, type, 0.5f),
          make({shape.rows, shape.columns}, 2, type, 0),
          make({shape.columns}, 3, parameter_type, 1), make({shape.columns}, 4, parameter_type, 0)};
}

Tensors ours(const Tensors& in) { return {layer_norm(in[0], in[1], in[2], kEps)}; }
Tensors by_aten(const Tensors& in) {
  return {at::layer_norm(in[0], {in[0].size(-1)}, in[1], in[2], kEps)};
}
Tensors ours_added(const Tensors& in) {
  const auto [normal, sum] = add_layer_norm(in[0], in[1], in[2], in[3], kEps);
  return {normal, sum};
}
// the sum is rounded to `type`, which its gradient does not see
Computation added_by_aten(Float type) {
  return [type](const Tensors& in) -> Tensors {
    const at::Tensor exact = in[0] + in[1];
    const at::Tensor sum =
        exact + (exact.to(at::kFloat).to(scalar_type(type)).to(at::kDouble) - exact).detach();
    return {at::layer_norm(sum, {sum.size(-1)}, in[2], in[3], kEps), sum};
  };
}

std::vector<Float> parameter_types(Float type) {
  if (type == Float::kFloat32) return {type};
  return {Float::kFloat32, type};
}

class LayerNormOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, LayerNormOp, testing::Values(at::kCPU, at::kCUDA), device_name);

TEST_P(LayerNormOp, AgreesWithAtenBothWaysForEveryShapeAndType) {
  for (const RowShape& shape : norm_shapes())
    for (Float type : all_float_types())
      for (Float parameter_type : parameter_types(type)) {
        const Tensors in = inputs_of(shape, type, parameter_type, device());
        const std::string what =
            shape.name() + " " + name_of(type) + " weights " + name_of(parameter_type);
        expect_agreement(ours, by_aten, {in[0], in[2], in[3]}, what);
        expect_agreement(ours_added, added_by_aten(type), in, "added " + what);
      }
}

TEST_P(LayerNormOp, KeepsItsDigitsFarFromZero) {
  // E[x^2] - mean^2 would be wrong by several per cent here
  Tensors in = inputs_of({9, 256}, Float::kFloat32, Float::kFloat32, device());
  in[0] = random_tensor({9, 256}, 1, Float::kFloat32, device(), 100, 0.1f).requires_grad_();
  expect_agreement(ours, by_aten, {in[0], in[2], in[3]}, "far", Tolerance{2e-4, 2e-4});
}

TEST_P(LayerNormOp, AddsWhatFlowsIntoTheSumAloneOrNotAtAll) {
  const Tensors in = inputs_of({6, 40}, Float::kFloat32, Float::kFloat32, device());
  for (size_t used : {0, 1}) {
    const auto only = [used](const Computation& all) {
      return [all, used](const Tensors& t) -> Tensors {
        // weights reach the graph in both
        const Tensors out = all(t);
        return {out[used] * 2, (t[2] + t[3]) * 1};
      };
    };
    expect_agreement(only(ours_added), only(added_by_aten(Float::kFloat32)), in,
                     "output " + std::to_string(used));
  }
}

TEST_P(LayerNormOp, TakesAnyStridesAndLeadingDimensions) {
  const Tensors in = inputs_of({6, 40}, Float::kFloat32, Float::kFloat32, device());
  const auto transposed = [](const Computation& all) {
    return [all](const Tensors& t) -> Tensors {
      return all({t[0].view({2, 3, 40}).transpose(0, 1), t[1], t[2].flip(0)});
    };
  };
  expect_agreement(transposed(ours), transposed(by_aten), {in[0], in[2], in[3]}, "transposed");
}

TEST_P(LayerNormOp, GivesTheSameBitsTwice) {
  const Tensors in = inputs_of({700, 96}, Float::kBFloat16, Float::kFloat32, device());
  const Tensors one = run_both_ways(ours_added, in, false);
  const Tensors two = run_both_ways(ours_added, in, false);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i]));
}

TEST_P(LayerNormOp, NamesWhatIsWrongWithItsArguments) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, device());
  const at::Tensor &x = in[0], &weight = in[2], &bias = in[3];
  expect_message([&] { layer_norm(x.to(at::kDouble), weight, bias, kEps); },
                 "layer_norm: x must be float32, bfloat16 or float16, not Double");
  expect_message([&] { layer_norm(x, weight.slice(0, 0, 5), bias, kEps); },
                 "weight must be [6], not [5]");
  expect_message([&] { layer_norm(x, weight.to(at::kHalf), bias, kEps); },
                 "weight must be float32 or Float as x is, not Half");
  expect_message([&] { layer_norm(x.to(at::kHalf), weight, bias.to(at::kHalf), kEps); },
                 "give them one dtype");
  expect_message(
      [&] {
        layer_norm(at::empty({3, 0}, x.options()), weight, bias, kEps);
      },
      "last dimension of 1 or more");
  expect_message([&] { add_layer_norm(x, in[1].slice(0, 0, 3), weight, bias, kEps); },
                 "add_layer_norm: residual must be Float [4, 6]");
}

TEST(LayerNormCpu, AgreesWithAtenAtEveryVectorWidth) {
  with_every_simd_level([](const std::string& level) {
    for (const RowShape& shape : norm_shapes())
      for (Float type : all_float_types())
        expect_agreement(ours_added, added_by_aten(type),
                         inputs_of(shape, type, Float::kFloat32, at::kCPU),
                         shape.name() + " " + name_of(type) + level);
  });
}

TEST(LayerNormCpu, GivesTheSameBitsOnOneAndTwoThreads) {
  for (Float type : all_float_types())
    expect_same_bits_on_one_and_two_threads(
        ours_added, inputs_of({1000, 129}, type, Float::kFloat32, at::kCPU));
}

TEST(LayerNormCpu, ReachesRowsBeyondTwoToTheThirtyFirstElements) {
  constexpr int64_t kColumns = 1024, kRows = (int64_t{1} << 22) + 3;  // 2^32 elements and 3 rows
  const FarMemory x(kRows * kColumns * 2), output(kRows * kColumns * 2), stats(2 * kRows * 4);
  const std::vector<float> weight(kColumns, 1), bias(kColumns, 0);
  BFloat16* const row = x.as<BFloat16>() + (kRows - 1) * kColumns;
  for (int64_t c = 0; c < kColumns; ++c) row[c] = rounded<BFloat16>(c % 2 ? 3.0f : 1.0f);
  LayerNorm args{x.as<void>(),      nullptr, weight.data(),     bias.data(),
                 output.as<void>(), nullptr, stats.as<float>(), kRows,
                 kColumns,          0,       Float::kBFloat16,  Float::kFloat32};
  layer_norm_cpu_simd(args, kRows - 1, kRows);
  const BFloat16* const normal = output.as<BFloat16>() + (kRows - 1) * kColumns;
  for (int64_t c = 0; c < kColumns; ++c)
    ASSERT_EQ(widened(normal[c]), c % 2 ? 1.0f : -1.0f) << "column " << c;
  EXPECT_EQ(stats.as<float>()[kRows - 1], 2.0f);
}

TEST(LayerNormMeta, HasTheShapesOfTheRealOne) {
  for (const RowShape& shape : norm_shapes())
    for (Float type : all_float_types())
      expect_meta_like_the_real_one(ours_added, inputs_of(shape, type, type, at::kCPU));
}

TEST(LayerNormAutograd, RefusesASecondDerivativeAndRecordsNothingWithoutAFirst) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, at::kCPU);
  expect_no_second_derivative([&](const Tensors& t) { return ours({t[0], in[2], in[3]}); }, in[0]);
  const at::NoGradGuard guard;
  EXPECT_FALSE(ours({in[0], in[2], in[3]})[0].requires_grad());
}

TEST(LayerNormAutograd, RunsInInferenceMode) {
  const Tensors in = inputs_of({4, 6}, Float::kFloat32, Float::kFloat32, at::kCPU);
  const at::Tensor expected = ours({in[0], in[2], in[3]})[0];
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(ours({in[0], in[2], in[3]})[0], expected));
}

}  // namespace
}  // namespace lehr::kernels
