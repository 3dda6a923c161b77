// embedding and embedding_add: ATen in float64 defines the gradients, its index_select the values.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/embedding/embedding_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/device.h"
#include "tests/kernels/embedding_cases.h"

namespace lehr::kernels {
namespace {

const std::vector<at::ScalarType> kTypes = {at::kFloat, at::kBFloat16, at::kHalf};

struct Inputs {
  at::Tensor weight, positions, ids, seed;  // seed: what the backward starts from
};

Inputs make_inputs(const EmbeddingShape& shape, at::ScalarType type, at::Device device) {
  const auto values = [&](std::vector<int64_t> sizes, uint32_t seed) {
    return at::tensor(embedding_values(c10::multiply_integers(sizes), seed))
        .view(sizes)
        .to(device, type);
  };
  return {
      values({shape.vocabulary, shape.width}, 1), values({shape.length + 2, shape.width}, 2),
      at::tensor(embedding_ids(shape), at::kLong).view({shape.sequences, shape.length}).to(device),
      values({shape.sequences, shape.length, shape.width}, 3)};
}

// a float32 sum of up to 350 numbers, then one rounding
double tolerance(at::ScalarType type) {
  return type == at::kFloat ? 2e-6 : type == at::kHalf ? 0x1p-11 : 0x1p-8;
}

void expect_near(const at::Tensor& value, const at::Tensor& expected, double relative,
                 const std::string& where) {
  ASSERT_EQ(value.sizes(), expected.sizes()) << where;
  if (value.numel() == 0) return;
  EXPECT_TRUE(at::allclose(value.to(at::kDouble), expected, relative, 2e-5)) << where;
}

class EmbeddingOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, EmbeddingOp, testing::Values(at::kCPU, at::kCUDA), device_name);

TEST_P(EmbeddingOp, AgreesWithAtenForEveryShapeAndType) {
  for (const EmbeddingShape& shape : embedding_shapes()) {
    for (at::ScalarType type : kTypes) {
      const Inputs in = make_inputs(shape, type, device());
      const std::string where = shape.name() + " " + c10::toString(type);
      const auto weight = in.weight.clone().requires_grad_();
      const auto output = kernels::embedding(weight, in.ids);
      EXPECT_TRUE(
          at::equal(output, in.weight.index_select(0, in.ids.view({-1})).view(in.seed.sizes())))
          << where;
      const auto w = in.weight.to(at::kDouble).requires_grad_();
      const auto expected =
          torch::autograd::grad({at::embedding(w, in.ids)}, {w}, {in.seed.to(at::kDouble)})[0];
      const auto gradient = torch::autograd::grad({output}, {weight}, {in.seed})[0];
      EXPECT_EQ(gradient.scalar_type(), type);
      expect_near(gradient, expected, tolerance(type), where);
    }
  }
}

TEST_P(EmbeddingOp, AddsPositionsAsAtenDoes) {
  for (const EmbeddingShape& shape : embedding_shapes()) {
    for (at::ScalarType type : kTypes) {
      const Inputs in = make_inputs(shape, type, device());
      const std::string where = shape.name() + " " + c10::toString(type);
      const auto weight = in.weight.clone().requires_grad_(),
                 positions = in.positions.clone().requires_grad_();
      const auto output = embedding_add(weight, positions, in.ids);
      EXPECT_TRUE(at::equal(
          output, at::embedding(in.weight, in.ids) + in.positions.narrow(0, 0, shape.length)))
          << where;
      const auto w = in.weight.to(at::kDouble).requires_grad_(),
                 p = in.positions.to(at::kDouble).requires_grad_();
      const auto expected =
          torch::autograd::grad({at::embedding(w, in.ids) + p.narrow(0, 0, shape.length)}, {w, p},
                                {in.seed.to(at::kDouble)});
      const auto gradients = torch::autograd::grad({output}, {weight, positions}, {in.seed});
      expect_near(gradients[0], expected[0], tolerance(type), where + " weight");
      expect_near(gradients[1], expected[1], tolerance(type), where + " positions");
    }
  }
}

TEST_P(EmbeddingOp, GivesGradientsToThoseThatWantThem) {
  const Inputs in = make_inputs({2, 9, 40, 64}, at::kFloat, device());
  EXPECT_FALSE(embedding_add(in.weight, in.positions, in.ids).requires_grad());
  const auto positions = in.positions.clone().requires_grad_();
  const auto output = embedding_add(in.weight, positions, in.ids);
  output.backward(in.seed);
  EXPECT_TRUE(positions.grad().defined());
  EXPECT_FALSE(in.weight.grad().defined());
}

TEST_P(EmbeddingOp, TakesIdsOfAnyShapeAndStrides) {
  const Inputs in = make_inputs({4, 6, 40, 16}, at::kFloat, device());
  EXPECT_TRUE(
      at::equal(kernels::embedding(in.weight, in.ids.t()), at::embedding(in.weight, in.ids.t())));
  EXPECT_TRUE(at::equal(kernels::embedding(in.weight, in.ids[1][2]),
                        in.weight[in.ids[1][2].item<int64_t>()]));
  EXPECT_TRUE(
      at::equal(kernels::embedding(in.weight.slice(0, 0, 40, 1).t().contiguous().t(), in.ids),
                at::embedding(in.weight, in.ids)));
  // a gradient that is expanded, not contiguous
  const auto weight = in.weight.clone().requires_grad_();
  kernels::embedding(weight, in.ids).sum().backward();
  EXPECT_EQ(weight.grad().sum().item<float>(), 4 * 6 * 16);
}

TEST(EmbeddingThreads, GivesTheSameBitsOnOneAndTwoThreads) {
  const Inputs in = make_inputs({8, 128, 65, 136}, at::kFloat, at::kCPU);
  const int before = at::get_num_threads();
  std::vector<at::Tensor> gradients[2];
  for (int threads : {1, 2}) {
    at::set_num_threads(threads);
    const auto weight = in.weight.clone().requires_grad_(),
               positions = in.positions.clone().requires_grad_();
    gradients[threads - 1] = torch::autograd::grad({embedding_add(weight, positions, in.ids)},
                                                   {weight, positions}, {in.seed});
  }
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(gradients[0][0], gradients[1][0]));
  EXPECT_TRUE(at::equal(gradients[0][1], gradients[1][1]));
}

TEST(EmbeddingMeta, HasTheShapesOfTheRealOne) {
  for (const EmbeddingShape& shape : embedding_shapes()) {
    const Inputs in = make_inputs(shape, at::kBFloat16, at::kCPU);
    const auto weight = in.weight.to(at::kMeta).requires_grad_(),
               positions = in.positions.to(at::kMeta).requires_grad_();
    const auto output = embedding_add(weight, positions, in.ids.to(at::kMeta));
    EXPECT_TRUE(output.is_meta());
    EXPECT_EQ(output.sizes(), in.seed.sizes());
    EXPECT_EQ(output.scalar_type(), at::kBFloat16);
    const auto gradients =
        torch::autograd::grad({output}, {weight, positions}, {in.seed.to(at::kMeta)});
    EXPECT_EQ(gradients[0].sizes(), weight.sizes());
    EXPECT_EQ(gradients[1].sizes(), positions.sizes());
  }
}

TEST(EmbeddingArguments, AreCheckedByName) {
  const Inputs in = make_inputs({2, 3, 7, 5}, at::kFloat, at::kCPU);
  expect_message([&] { return kernels::embedding(in.weight.to(at::kDouble), in.ids); },
                 "dtype must be float32");
  expect_message([&] { return kernels::embedding(in.weight[0], in.ids); }, "weight must be [V, D]");
  expect_message([&] { return kernels::embedding(in.weight, in.ids.to(at::kInt)); },
                 "ids must be int64");
  expect_message([&] { return kernels::embedding(in.weight, in.ids + 7); }, "is not in [0, 7)");
  expect_message([&] { return kernels::embedding(in.weight, in.ids - 7); }, "id -");
  expect_message([&] { return embedding_add(in.weight, in.positions.narrow(0, 0, 2), in.ids); },
                 "positions must be [at least 3, 5], not [2, 5]");
  expect_message([&] { return embedding_add(in.weight, in.positions.to(at::kHalf), in.ids); },
                 "positions must have weight's dtype");
}

}  // namespace
}  // namespace lehr::kernels
