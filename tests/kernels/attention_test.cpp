// The op lehr::causal_attention: ATen's scaled_dot_product_attention in double defines it and its
// gradient. It runs on the CPU alone; on a GPU the models call ATen's op.
#include <gtest/gtest.h>

#include "kernels/attention/attention_op.h"
#include "tests/kernels/agreement.h"

namespace lehr::kernels {
namespace {

struct Shape {
  int64_t batch, time, heads, kv_heads, head_size;
  std::string name() const {
    return std::to_string(batch) + "x" + std::to_string(time) + " heads " + std::to_string(heads) +
           "/" + std::to_string(kv_heads) + " of " + std::to_string(head_size);
  }
};

// one token, less than a vector, odd sizes, several blocks of queries, shared keys
const std::vector<Shape> kShapes = {{1, 1, 1, 1, 1},   {2, 3, 2, 2, 4},   {2, 31, 3, 3, 5},
                                    {1, 33, 2, 1, 16}, {3, 64, 4, 4, 32}, {1, 100, 6, 2, 24},
                                    {2, 129, 1, 1, 64}};

Tensors inputs_of(const Shape& s, Float type, float deviation = 1) {
  return {random_tensor({s.batch, s.time, (s.heads + 2 * s.kv_heads) * s.head_size}, 1, type,
                        at::kCPU, 0, deviation)
              .requires_grad_()};
}

Computation ours(const Shape& s) {
  return [s](const Tensors& in) -> Tensors {
    return {causal_attention(in[0], s.heads, s.kv_heads, s.head_size)};
  };
}

Computation by_aten(const Shape& s) {
  return [s](const Tensors& in) -> Tensors {
    const auto parts = in[0]
                           .unflatten(-1, {s.heads + 2 * s.kv_heads, s.head_size})
                           .split_with_sizes({s.heads, s.kv_heads, s.kv_heads}, 2);
    const auto out = at::scaled_dot_product_attention(
        parts[0].transpose(1, 2), parts[1].transpose(1, 2), parts[2].transpose(1, 2), {}, 0, true,
        {}, s.heads != s.kv_heads);
    return {out.transpose(1, 2).flatten(2)};
  };
}

// Both ways in double, on float32 numbers; the backward reads `stored` where it is given.
Tensors by_oracle(const Shape& s, const at::Tensor& qkv, const at::Tensor& grad,
                  const at::Tensor& stored = {}) {
  const at::Tensor out = at::empty({s.batch, s.time, s.heads * s.head_size});
  const at::Tensor log_sums = at::empty({s.batch, s.heads, s.time});
  attention_cpu({qkv.const_data_ptr(), out.mutable_data_ptr(), log_sums.mutable_data_ptr<float>(),
                 s.batch, s.time, s.heads, s.kv_heads, s.head_size, Float::kFloat32});
  const at::Tensor grad_qkv = at::empty(qkv.sizes());
  attention_backward_cpu({grad.const_data_ptr(), qkv.const_data_ptr(),
                          (stored.defined() ? stored : out).const_data_ptr(),
                          log_sums.const_data_ptr<float>(), grad_qkv.mutable_data_ptr(), s.batch,
                          s.time, s.heads, s.kv_heads, s.head_size, Float::kFloat32});
  return {out, grad_qkv};
}

// sums of `time` terms round on the way
constexpr Tolerance kFloat32Sums{4e-6, 2e-5};

TEST(Attention, AgreesWithAtenBothWaysForEveryShapeAndWidth) {
  with_every_simd_level([](const std::string& level) {
    for (const Shape& s : kShapes)
      expect_agreement(ours(s), by_aten(s), inputs_of(s, Float::kFloat32), s.name() + level,
                       kFloat32Sums);
  });
}

TEST(Attention, IsItsOracle) {
  for (const Shape& s : kShapes) {
    const Tensors in = inputs_of(s, Float::kFloat32), got = run_both_ways(ours(s), in, false);
    const Tensors expected = by_oracle(s, in[0].detach(), incoming_gradient(got[0], 0));
    expect_close(got[0], expected[0], {1e-6, 1e-5}, s.name());
    expect_close(got[1], expected[1], kFloat32Sums, s.name());
  }
}

// The output is rounded once, and so is the gradient, which is made from the rounded output.
TEST(Attention, RoundsOnceInLowPrecisionForEveryShapeTypeAndWidth) {
  with_every_simd_level([](const std::string& level) {
    for (const Shape& s : kShapes)
      for (Float type : {Float::kBFloat16, Float::kFloat16}) {
        const Tensors in = inputs_of(s, type), got = run_both_ways(ours(s), in, false);
        const Tensors expected =
            by_oracle(s, in[0].detach().to(at::kFloat), incoming_gradient(got[0], 0).to(at::kFloat),
                      got[0].detach().to(at::kFloat));
        for (size_t i : {0, 1})
          expect_close(got[i], expected[i], rounding_tolerance(type),
                       s.name() + " " + name_of(type) + level + " result " + std::to_string(i));
      }
  });
}

TEST(Attention, StaysFiniteForScoresThatOverflowAnExponential) {
  const Shape s{1, 40, 2, 2, 8};
  expect_agreement(ours(s), by_aten(s), inputs_of(s, Float::kFloat32, 30), "large", {{1e-3, 1e-3}});
}

TEST(Attention, DoesNotSeeTokensThatFollow) {
  const Shape s{1, 50, 2, 2, 8};
  at::Tensor qkv = inputs_of(s, Float::kFloat32)[0].detach();
  const at::Tensor before = causal_attention(qkv, 2, 2, 8).slice(1, 0, 20).clone();
  qkv.slice(1, 20).fill_(1e4);
  EXPECT_TRUE(at::equal(causal_attention(qkv, 2, 2, 8).slice(1, 0, 20), before));
}

TEST(Attention, TakesNoTokensAndNoBatch) {
  EXPECT_EQ(causal_attention(at::empty({0, 4, 24}), 1, 1, 8).sizes(), at::IntArrayRef({0, 4, 8}));
  EXPECT_EQ(causal_attention(at::empty({2, 0, 24}), 1, 1, 8).sizes(), at::IntArrayRef({2, 0, 8}));
}

TEST(Attention, GivesTheSameBitsOnOneAndTwoThreads) {
  const Shape s{3, 70, 4, 2, 16};
  for (Float type : all_float_types())
    expect_same_bits_on_one_and_two_threads(ours(s), inputs_of(s, type));
}

TEST(Attention, HasMetaShapesLikeTheRealOnes) {
  const Shape s{2, 5, 4, 2, 8};
  expect_meta_like_the_real_one(ours(s), inputs_of(s, Float::kFloat32));
}

TEST(Attention, NamesWhatIsWrongWithItsArguments) {
  const at::Tensor qkv = at::empty({2, 3, 24});
  expect_message([&] { causal_attention(qkv, 1, 1, 4); }, "qkv must be [B, T, 12], not [2, 3, 24]");
  expect_message([&] { causal_attention(qkv, 3, 2, 4); },
                 "2 heads of keys must divide 3 heads of queries");
  expect_message([&] { causal_attention(qkv.to(at::kDouble), 1, 1, 8); },
                 "qkv must be float32, bfloat16 or float16, not Double");
}

}  // namespace
}  // namespace lehr::kernels
