// The ops lehr::rope and lehr::rope_: the rotation in ATen's ops at double precision defines both.
#include <gtest/gtest.h>

#include "kernels/common/rounding.h"
#include "kernels/rope/rope_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"
#include "tests/kernels/far_memory.h"
#include "tests/kernels/rope_cases.h"

namespace lehr::kernels {
namespace {

at::Tensor table_of(const RopeShape& shape, at::Device device) {
  return at::tensor(rope_table(shape.positions, shape.head_dim), at::kFloat)
      .view({shape.positions, shape.head_dim})
      .to(device);
}

at::Tensor qkv_of(const RopeShape& shape, Float type, at::Device device) {
  return random_tensor({shape.batch, shape.positions, shape.columns()}, 1, type, device)
      .requires_grad_();
}

Computation ours(const RopeShape& shape) {
  return [shape](const Tensors& in) -> Tensors {
    return {rope(in[0], table_of(shape, at::kCPU).to(in[0].device()), shape.heads, shape.kv_heads,
                 shape.head_dim)};
  };
}

// turned = x cos + (-x2, x1) sin with cos and sin repeated over both halves
Computation by_aten(const RopeShape& shape) {
  return [shape](const Tensors& in) -> Tensors {
    const at::Tensor x = in[0].view(
        {shape.batch, shape.positions, shape.heads + 2 * shape.kv_heads, shape.head_dim});
    const at::Tensor table =
        table_of(shape, in[0].device()).to(in[0].scalar_type()).view({-1, 1, shape.head_dim});
    const std::vector<at::Tensor> halves = table.chunk(2, -1);
    const at::Tensor cos = at::cat({halves[0], halves[0]}, -1);
    const at::Tensor sin = at::cat({halves[1], halves[1]}, -1);
    const at::Tensor turned = x.slice(2, 0, shape.heads + shape.kv_heads);
    const std::vector<at::Tensor> x12 = turned.chunk(2, -1);
    const at::Tensor result = turned * cos + at::cat({-x12[1], x12[0]}, -1) * sin;
    return {at::cat({result, x.slice(2, shape.heads + shape.kv_heads)}, 2).view(in[0].sizes())};
  };
}

class RopeOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, RopeOp, testing::Values(at::kCPU, at::kCUDA), device_name);

TEST_P(RopeOp, AgreesWithAtenBothWaysForEveryShapeAndType) {
  for (const RopeShape& shape : rope_shapes())
    for (Float type : all_float_types())
      expect_agreement(ours(shape), by_aten(shape), {qkv_of(shape, type, device())},
                       shape.name() + " " + name_of(type));
}

TEST_P(RopeOp, InPlaceGivesTheSameBitsAndTurnsBack) {
  for (const RopeShape& shape : rope_shapes())
    for (Float type : all_float_types()) {
      const at::Tensor before = qkv_of(shape, type, device()).detach();
      const at::Tensor table = table_of(shape, device());
      at::Tensor qkv = before.clone();
      const auto version = qkv._version();
      at::Tensor& returned = rope_(qkv, table, shape.heads, shape.kv_heads, shape.head_dim);
      EXPECT_TRUE(returned.is_same(qkv));
      EXPECT_GT(qkv._version(), version);  // autograd sees the change
      EXPECT_TRUE(at::equal(qkv, ours(shape)({before})[0])) << shape.name();
      rope_(qkv, table, shape.heads, shape.kv_heads, shape.head_dim, true);
      const double unit = type == Float::kFloat32 ? 2e-6 : type == Float::kBFloat16 ? 0.02 : 2e-3;
      expect_close(qkv, before, {unit, unit}, shape.name());
    }
}

TEST_P(RopeOp, KeepsWhatOthersSeeOfTheGradient) {
  const RopeShape shape{2, 5, 3, 3, 16};
  const at::Tensor qkv = qkv_of(shape, Float::kFloat32, device());
  // the caller's gradient, a view of it, and one that two functions receive
  const at::Tensor grad = at::rand_like(qkv), copy = grad.clone();
  ours(shape)({qkv})[0].backward(grad);
  EXPECT_TRUE(at::equal(grad, copy));
  const at::Tensor expected = qkv.grad().clone();

  qkv.mutable_grad().reset();
  ours(shape)({qkv})[0].backward(grad.view(qkv.sizes()));
  EXPECT_TRUE(at::equal(grad, copy));
  EXPECT_TRUE(at::equal(qkv.grad(), expected));

  qkv.mutable_grad().reset();
  const at::Tensor other = at::zeros_like(qkv).requires_grad_();
  ((ours(shape)({qkv})[0] + other) * 1.0).backward(grad);
  EXPECT_TRUE(at::equal(other.grad(), grad));
  EXPECT_TRUE(at::equal(qkv.grad(), expected));

  qkv.mutable_grad().reset();
  const at::Tensor turned = ours(shape)({qkv})[0];
  turned.retain_grad();
  (turned * 1.0).backward(grad);
  EXPECT_TRUE(at::equal(turned.grad(), grad));
  EXPECT_TRUE(at::equal(qkv.grad(), expected));
}

TEST_P(RopeOp, TurnsAGradientThatNobodyElseHoldsInItsOwnMemory) {
  const RopeShape shape{2, 5, 3, 3, 16};
  const at::Tensor qkv = qkv_of(shape, Float::kFloat32, device());
  const at::Tensor turned = ours(shape)({qkv})[0];
  const void* memory = nullptr;
  turned.register_hook([&](const at::Tensor& grad) { memory = grad.const_data_ptr(); });
  turned.square().sum().backward();
  EXPECT_EQ(qkv.grad().const_data_ptr(), memory);
  expect_close(qkv.grad(), qkv * 2, {2e-6, 2e-6}, "a rotation keeps lengths");
}

TEST_P(RopeOp, NamesWhatIsWrongWithItsArguments) {
  const RopeShape shape{2, 5, 3, 1, 16};
  at::Tensor qkv = qkv_of(shape, Float::kFloat32, device());
  const at::Tensor table = table_of(shape, device());
  expect_message([&] { rope(qkv, table, 3, 2, 16); }, "qkv must be [B, T, 112], not [2, 5, 80]");
  expect_message([&] { rope(qkv, table.slice(0, 1), 3, 1, 16); },
                 "cos_sin must be float32 [5, 16], not Float [4, 16]");
  expect_message([&] { rope(qkv, table, 3, 1, 15); }, "even head_dim 15");
  expect_message([&] { rope(qkv.to(at::kDouble), table, 3, 1, 16); }, "not Double");
  expect_message([&] { rope_(qkv, table, 3, 1, 16); }, "rope_: qkv needs a gradient");
  at::Tensor strided = at::empty({2, 80, 5}, qkv.options().requires_grad(false)).transpose(1, 2);
  expect_message([&] { rope_(strided, table, 3, 1, 16); }, "qkv must be contiguous");
}

TEST(RopeCpu, AgreesWithAtenAtEveryVectorWidth) {
  with_every_simd_level([](const std::string& level) {
    for (const RopeShape& shape : rope_shapes())
      for (Float type : all_float_types())
        expect_agreement(ours(shape), by_aten(shape), {qkv_of(shape, type, at::kCPU)},
                         shape.name() + level);
  });
}

TEST(RopeCpu, GivesTheSameBitsOnOneAndTwoThreads) {
  const RopeShape shape{3, 65, 6, 2, 36};
  for (Float type : all_float_types())
    expect_same_bits_on_one_and_two_threads(ours(shape), {qkv_of(shape, type, at::kCPU)});
}

TEST(RopeCpu, ReachesRowsBeyondTwoToTheThirtyFirstElements) {
  constexpr int64_t kDim = 256, kColumns = 4 * kDim, kRows = (int64_t{1} << 22) + 3;
  const FarMemory qkv(kRows * kColumns * 2);
  BFloat16* const row = qkv.as<BFloat16>() + (kRows - 1) * kColumns;
  for (int64_t c = 0; c < kColumns; ++c) row[c] = rounded<BFloat16>(c % kDim < kDim / 2 ? 1 : 2);
  std::vector<float> table(kDim);  // a quarter turn
  std::fill(table.begin() + kDim / 2, table.end(), 1.0f);
  rope_cpu_simd(
      {qkv.as<void>(), qkv.as<void>(), table.data(), kRows, 1, 3, 1, kDim, false, Float::kBFloat16},
      kRows - 1, kRows);
  for (int64_t c = 0; c < kColumns; ++c) {
    const bool first = c % kDim < kDim / 2, turned = c < 3 * kDim;
    ASSERT_EQ(widened(row[c]), turned ? (first ? -2 : 1) : (first ? 1 : 2)) << "column " << c;
  }
}

TEST(RopeMeta, HasTheShapesOfTheRealOne) {
  for (const RopeShape& shape : rope_shapes())
    expect_meta_like_the_real_one(ours(shape), {qkv_of(shape, Float::kBFloat16, at::kCPU)});
}

TEST(RopeAutograd, RefusesASecondDerivativeAndRecordsNothingWithoutAFirst) {
  const RopeShape shape{2, 5, 3, 3, 16};
  const at::Tensor qkv = qkv_of(shape, Float::kFloat32, at::kCPU);
  expect_no_second_derivative(ours(shape), qkv);
  const at::NoGradGuard guard;
  EXPECT_FALSE(ours(shape)({qkv})[0].requires_grad());
}

}  // namespace
}  // namespace lehr::kernels
