// cross_entropy_sum and linear_cross_entropy_sum: ATen in float64 defines.
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/cross_entropy/cross_entropy_op.h"
#include "tests/kernels/agreement.h"
#include "tests/kernels/cross_entropy_cases.h"
#include "tests/kernels/device.h"

namespace lehr::kernels {
namespace {

const std::vector<at::ScalarType> kTypes = {at::kFloat, at::kBFloat16, at::kHalf};

struct Inputs {
  at::Tensor logits, targets;  // [N, stride], [N]
  CrossEntropyOptions options;
};

Inputs make_inputs(const ClassifierShape& shape, at::ScalarType type, at::Device device,
                   float smoothing = 0, float z_loss = 0, bool hard = false) {
  const auto values = cross_entropy_logits(shape, hard);
  const auto targets = cross_entropy_targets(shape);
  return {at::tensor(values).view({shape.rows, shape.stride}).to(device, type),
          at::tensor(targets, at::kLong).to(device),
          {smoothing, z_loss, shape.vocabulary}};
}

// the definition, in ATen's ops and float64
at::Tensor by_aten(const at::Tensor& logits, const at::Tensor& targets,
                   const CrossEntropyOptions& options) {
  const auto x =
      logits.to(at::kDouble).narrow(1, 0, options.vocabulary ? options.vocabulary : logits.size(1));
  at::Tensor sum = at::cross_entropy_loss(x, targets, {}, at::Reduction::Sum, kIgnoredTarget,
                                          options.label_smoothing);
  if (options.z_loss != 0) {
    const auto lse = at::logsumexp(x, 1);
    sum = sum + options.z_loss * at::where(targets == kIgnoredTarget, 0, lse.square()).sum();
  }
  return sum;
}

at::Tensor gradient_of(const at::Tensor& sum, const at::Tensor& input, double seed = 1) {
  return torch::autograd::grad({sum}, {input}, {at::full({}, seed, sum.options())})[0];
}

void expect_near(const at::Tensor& value, const at::Tensor& expected, Tolerance tolerance,
                 const std::string& where) {
  ASSERT_EQ(value.sizes(), expected.sizes()) << where;
  const auto a = value.to(at::kCPU, at::kDouble), b = expected.to(at::kCPU, at::kDouble);
  const auto wrong =
      at::isclose(a, b, tolerance.relative, tolerance.absolute, /*equal_nan=*/true).logical_not();
  EXPECT_FALSE(wrong.any().item<bool>())
      << where << ": " << wrong.sum().item<int64_t>() << " differ, by up to "
      << (a - b).abs().max().item<double>();
}

// a token's tolerance times the tokens
Tolerance of_sum(const ClassifierShape& shape) {
  const Tolerance one = cross_entropy_loss_tolerance();
  return {one.absolute * static_cast<double>(shape.rows + 1), one.relative};
}

class CrossEntropyOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, CrossEntropyOp, testing::Values(at::kCPU, at::kCUDA),
                         device_name);

void expect_aten(const ClassifierShape& shape, at::ScalarType type, at::Device device,
                 float smoothing, float z_loss, bool hard) {
  const Inputs in = make_inputs(shape, type, device, smoothing, z_loss, hard);
  const std::string where = shape.name() + " " + c10::toString(type) + (hard ? " hard " : " ") +
                            std::to_string(smoothing) + " " + std::to_string(z_loss);
  const auto x = in.logits.to(at::kDouble).requires_grad_();
  const auto expected = by_aten(x, in.targets, in.options);
  expect_near(cross_entropy_sum(in.logits, in.targets, in.options), expected, of_sum(shape), where);
  const auto leaf = in.logits.clone().requires_grad_();
  const auto sum = cross_entropy_sum(leaf, in.targets, in.options);
  EXPECT_EQ(sum.scalar_type(), at::kFloat);
  EXPECT_EQ(sum.dim(), 0);
  expect_near(sum, expected, of_sum(shape), where);
  const auto gradient = gradient_of(sum, leaf, 0.5);
  EXPECT_EQ(gradient.scalar_type(), type);
  Tolerance tolerance = cross_entropy_gradient_tolerance(float_type(gradient));
  if (type == at::kHalf) tolerance.absolute += 0x1p-24;  // the halving rounds subnormals again
  expect_near(gradient, gradient_of(expected, x, 0.5), tolerance, where);
}

TEST_P(CrossEntropyOp, AgreesWithAtenForEveryShapeAndType) {
  for (const ClassifierShape& shape : cross_entropy_shapes())
    for (at::ScalarType type : kTypes)
      for (bool hard : {false, true}) expect_aten(shape, type, device(), 0, 0, hard);
}

TEST_P(CrossEntropyOp, AgreesWithAtenForEveryOption) {
  for (auto [smoothing, z_loss] : cross_entropy_options())
    for (at::ScalarType type : kTypes) {
      expect_aten({37, 65, 72}, type, device(), smoothing, z_loss, false);
      expect_aten({5, 4099, 4099}, type, device(), smoothing, z_loss, false);
    }
}

TEST_P(CrossEntropyOp, GivesNothingWhereEveryTargetIsIgnored) {
  Inputs in = make_inputs({6, 65, 65}, at::kFloat, device(), 0.1f, 0.1f);
  in.targets.fill_(kIgnoredTarget);
  in.logits.requires_grad_();
  const auto sum = cross_entropy_sum(in.logits, in.targets, in.options);
  EXPECT_EQ(sum.item<float>(), 0);
  EXPECT_EQ(gradient_of(sum, in.logits).abs().max().item<float>(), 0);
}

TEST_P(CrossEntropyOp, TakesBatchesOfSequences) {
  const Inputs in = make_inputs({12, 65, 65}, at::kFloat, device());
  const auto flat = cross_entropy_sum(in.logits, in.targets, in.options);
  EXPECT_TRUE(at::equal(
      flat, cross_entropy_sum(in.logits.view({3, 4, 65}), in.targets.view({3, 4}), in.options)));
  // and logits that are not contiguous
  const auto wide = at::cat({in.logits, in.logits}, 1).narrow(1, 0, 65);
  EXPECT_TRUE(at::equal(flat, cross_entropy_sum(wide, in.targets, in.options)));
}

TEST_P(CrossEntropyOp, ConsumesLogitsOfAGraphAndLeavesLeavesAlone) {
  const Inputs in = make_inputs({5, 65, 65}, at::kFloat, device());
  auto leaf = in.logits.clone().requires_grad_();
  gradient_of(cross_entropy_sum(leaf, in.targets), leaf);
  gradient_of(cross_entropy_sum(leaf.view({5, 65}), in.targets), leaf);
  EXPECT_TRUE(at::equal(leaf, in.logits));
  // made by an op: its memory becomes the gradient's
  const auto made = leaf * 1.0;
  const void* memory = made.const_data_ptr();
  const auto sum = cross_entropy_sum(made, in.targets);
  EXPECT_FALSE(at::equal(made, in.logits));
  EXPECT_EQ(gradient_of(sum, made).const_data_ptr(), memory);
  // an op that needs the consumed values says so instead of using the gradient for them
  const auto needed = leaf.exp();
  EXPECT_THROW(gradient_of(cross_entropy_sum(needed, in.targets), leaf), c10::Error);
  // nothing is consumed where no gradient is wanted
  c10::NoGradGuard no_grad;
  const auto kept = in.logits.clone();
  cross_entropy_sum(kept, in.targets);
  EXPECT_TRUE(at::equal(kept, in.logits));
}

TEST_P(CrossEntropyOp, RefusesASecondBackwardAndASecondDerivative) {
  const Inputs in = make_inputs({5, 65, 65}, at::kFloat, device());
  const auto leaf = in.logits.clone().requires_grad_();
  const auto sum = cross_entropy_sum(leaf, in.targets);
  torch::autograd::grad({sum}, {leaf}, {}, /*retain_graph=*/true);
  expect_message([&] { torch::autograd::grad({sum}, {leaf}); }, "called twice");
  EXPECT_THROW(torch::autograd::grad({cross_entropy_sum(leaf, in.targets)}, {leaf}, {}, true, true),
               c10::Error);
}

TEST(CrossEntropyArguments, AreCheckedByName) {
  const Inputs in = make_inputs({4, 10, 10}, at::kFloat, at::kCPU);
  const auto expect = [&](const at::Tensor& logits, const at::Tensor& targets,
                          const CrossEntropyOptions& options, const std::string& words) {
    expect_message([&] { cross_entropy_sum(logits, targets, options); }, words);
  };
  expect(in.logits.to(at::kDouble), in.targets, {}, "dtype must be float32, bfloat16 or float16");
  expect(in.logits, in.targets.to(at::kInt), {}, "targets must be int64, one for each of 4 rows");
  expect(in.logits, in.targets.narrow(0, 0, 3), {}, "one for each of 4 rows");
  expect(in.logits, in.targets, {0, 0, 11}, "a vocabulary of 11 does not fit 10 columns");
  expect(in.logits, in.targets, {1.5, 0, 0}, "label_smoothing must be in [0, 1]");
  expect(in.logits, in.targets, {0, -1, 0}, "z_loss must be 0 or more");
  expect(in.logits, at::full({4}, 10), {}, "target 10 at row 0 is neither in [0, 10) nor -100");
  expect(in.logits, at::full({4}, -1), {}, "target -1 at row 0");
  expect(in.logits.narrow(1, 0, 0), in.targets, {}, "V >= 1");

  const auto hidden = at::randn({4, 3}), weight = at::randn({10, 3});
  const auto linear = [&](const at::Tensor& h, const at::Tensor& w, const std::string& words) {
    expect_message([&] { linear_cross_entropy_sum(h, w, in.targets); }, words);
  };
  linear(hidden, weight.t(), "hidden must be [..., D] and weight [V, D]");
  linear(hidden.narrow(0, 0, 3), weight, "targets are [4]");
  linear(hidden, weight.to(at::kHalf), "weight must be float32 or hidden's");
}

TEST(CrossEntropyArguments, AWrongTargetLeavesTheLogitsAlone) {
  const auto leaf = at::randn({4, 10}).requires_grad_();
  const auto made = leaf * 1.0;
  EXPECT_THROW(cross_entropy_sum(made, at::tensor({0, 1, 2, 10})), c10::Error);
  EXPECT_TRUE(at::equal(made, leaf));
}

TEST(CrossEntropyMeta, HasTheShapesOfTheRealOne) {
  const auto logits = at::empty({4, 10}, at::TensorOptions(at::kMeta).dtype(at::kFloat));
  const auto targets = at::empty({4}, at::TensorOptions(at::kMeta).dtype(at::kLong));
  const auto leaf = logits.clone().requires_grad_();
  const auto sum = cross_entropy_sum(leaf, targets);
  EXPECT_TRUE(sum.is_meta() && sum.dim() == 0 && sum.scalar_type() == at::kFloat);
  EXPECT_EQ(gradient_of(sum, leaf).sizes(), leaf.sizes());
  const auto hidden = at::empty({2, 2, 3}, logits.options()).requires_grad_(),
             weight = at::empty({10, 3}, logits.options()).requires_grad_();
  const auto linear = linear_cross_entropy_sum(hidden, weight, targets.view({2, 2}));
  const auto gradients = torch::autograd::grad({linear}, {hidden, weight});
  EXPECT_EQ(gradients[0].sizes(), hidden.sizes());
  EXPECT_EQ(gradients[1].sizes(), weight.sizes());
}

TEST(CrossEntropyThreads, GivesTheSameBitsOnOneAndTwoThreads) {
  const Inputs in = make_inputs({300, 515, 515}, at::kFloat, at::kCPU, 0.1f, 1e-3f);
  const int before = at::get_num_threads();
  at::Tensor sums[2], gradients[2];
  for (int threads : {1, 2}) {
    at::set_num_threads(threads);
    const auto leaf = in.logits.clone().requires_grad_();
    sums[threads - 1] = cross_entropy_sum(leaf, in.targets, in.options);
    gradients[threads - 1] = gradient_of(sums[threads - 1], leaf, 0.1);
  }
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(sums[0], sums[1]));
  EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
}

class LinearCrossEntropy : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, LinearCrossEntropy, testing::Values(at::kCPU, at::kCUDA),
                         device_name);

TEST_P(LinearCrossEntropy, AgreesWithAtenForEveryChunk) {
  at::manual_seed(1);
  const auto targets = at::tensor(cross_entropy_targets({21, 100, 100})).to(device());
  const auto hidden = at::randn({3, 7, 16}).to(device()),
             weight = at::randn({104, 16}).to(device());
  const CrossEntropyOptions options{0.1, 1e-3, 100};
  const auto h = hidden.to(at::kDouble).requires_grad_(),
             w = weight.to(at::kDouble).requires_grad_();
  const auto expected = by_aten(h.view({21, 16}).mm(w.t()), targets, options);
  const auto wanted = torch::autograd::grad({expected * 0.25}, {h, w}, {}, /*retain_graph=*/true);
  for (int64_t chunk : {0, 1, 4, 20, 21, 1000}) {
    const auto our_h = hidden.clone().requires_grad_(), our_w = weight.clone().requires_grad_();
    const auto sum = linear_cross_entropy_sum(our_h, our_w, targets.view({3, 7}), options, chunk);
    expect_near(sum, expected, {1e-5, 1e-5}, "sum");
    const auto got = torch::autograd::grad({sum * 0.25}, {our_h, our_w});
    expect_near(got[0], wanted[0], {1e-5, 1e-5}, "d_hidden, chunk " + std::to_string(chunk));
    expect_near(got[1], wanted[1], {1e-5, 1e-5}, "d_weight, chunk " + std::to_string(chunk));
    // one of the two alone, and neither
    EXPECT_TRUE(at::equal(
        torch::autograd::grad(
            {linear_cross_entropy_sum(our_h, weight, targets, options, chunk) * 0.25}, {our_h})[0],
        got[0]));
    EXPECT_TRUE(at::equal(
        torch::autograd::grad(
            {linear_cross_entropy_sum(hidden, our_w, targets, options, chunk) * 0.25}, {our_w})[0],
        got[1]));
    EXPECT_TRUE(at::equal(linear_cross_entropy_sum(hidden, weight, targets, options, chunk), sum));
  }
}

TEST(LinearCrossEntropyChunks, AreBoundedByMemoryAndHaveARow) {
  struct Case {
    int64_t vocabulary, width;
    Float type;
    int64_t on_cpu, on_gpu;
  };
  for (const Case& c : {
           Case{65, 384, Float::kFloat32, 64527, 2064888},   // 16 MiB, 512 MiB
           Case{50257, 384, Float::kFloat32, 384, 2670},     // the memory of the weight's gradient
           Case{50257, 768, Float::kFloat32, 512, 2670},     // at most 512
           Case{50257, 128, Float::kBFloat16, 256, 5341},    //
           Case{128256, 4096, Float::kFloat16, 512, 2092},   //
           Case{300007, 4, Float::kFloat32, 13, 447},        // 16 MiB
           Case{int64_t{1} << 33, 1, Float::kFloat32, 1, 1}  //
       }) {
    EXPECT_EQ(cross_entropy_chunk_rows(c.vocabulary, c.width, c.type, true), c.on_cpu);
    EXPECT_EQ(cross_entropy_chunk_rows(c.vocabulary, c.width, c.type, false), c.on_gpu);
  }
}

// as many rows as make two chunks of the size chosen by the shape, and one row more
TEST_P(LinearCrossEntropy, AgreesWithAtenInSeveralChunksOfItsOwn) {
  const int64_t vocabulary = 8191;
  const int64_t rows =
      2 * cross_entropy_chunk_rows(vocabulary, 2, Float::kFloat32, device().is_cpu()) + 1;
  const auto targets = at::tensor(cross_entropy_targets({rows, vocabulary, vocabulary}));
  const auto h = random_tensor({rows, 2}, 1, Float::kFloat32, device()).requires_grad_(),
             w = random_tensor({vocabulary, 2}, 2, Float::kFloat32, device()).requires_grad_();
  const auto result = [&](const at::Tensor& sum) {
    const auto gradients = torch::autograd::grad({sum}, {h, w});
    return Tensors{sum, gradients[0], gradients[1]};
  };
  const Tensors got = result(linear_cross_entropy_sum(h, w, targets.to(device())));
  const Tensors expected =
      result(by_aten(h.to(at::kDouble).mm(w.to(at::kDouble).t()), targets.to(device()), {}));
  expect_near(got[0], expected[0], {0, 1e-6}, "sum");
  // the products sum thousands of numbers in float32
  for (size_t i : {1, 2})
    expect_close(got[i], expected[i], {5e-5, 1e-5}, "gradient " + std::to_string(i));
}

// Logits, their gradient, and the product of each chunk are rounded to bfloat16; sums are not.
TEST_P(LinearCrossEntropy, SumsFloat32GradientsOfBfloat16Products) {
  const int64_t rows = 64, chunk = 8;
  const auto targets = at::tensor(cross_entropy_targets({rows, 50, 50})).to(device());
  // products of them are exact in float32, in any order, so that all round them alike
  const auto lattice = [&](at::IntArrayRef sizes, uint64_t seed, double spacing) {
    return (random_tensor(sizes, seed, Float::kFloat32, device()) / 0.25).round() * spacing;
  };
  const auto hidden = lattice({rows, 32}, 1, 0.25).to(at::kBFloat16);
  const auto rounded_weight = lattice({50, 32}, 2, 0x1p-6);
  const auto weight = rounded_weight * (1 + 0x1p-10);  // rounded to it
  const auto our_h = hidden.clone().requires_grad_(), our_w = weight.clone().requires_grad_();
  const auto sum = linear_cross_entropy_sum(our_h, our_w, targets, {}, chunk);
  const auto got = torch::autograd::grad({sum}, {our_h, our_w});
  EXPECT_EQ(got[0].scalar_type(), at::kBFloat16);
  EXPECT_EQ(got[1].scalar_type(), at::kFloat);

  const auto stored = [](const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kDouble); };
  const auto h = hidden.to(at::kDouble), w = rounded_weight.to(at::kDouble);
  const auto logits = stored(h.mm(w.t())).requires_grad_();
  const auto expected = by_aten(logits, targets, {});
  const auto gradient = stored(torch::autograd::grad({expected}, {logits})[0]);
  auto d_weight = at::zeros_like(w);
  for (int64_t begin = 0; begin < rows; begin += chunk)
    d_weight += stored(gradient.narrow(0, begin, chunk).t().mm(h.narrow(0, begin, chunk)));
  const auto d_hidden = gradient.mm(w);
  expect_near(sum, expected, {0, 1e-6}, "sum");
  // a gradient of a logit may fall to the other side of a rounding: times a weight, or an input
  expect_near(got[0], d_hidden, {0x1p-10, 0x1.02p-8}, "d_hidden");
  expect_near(got[1], d_weight, {0x1p-5, 0}, "d_weight");
  // by which it is the right one at large: roundings cancel
  const auto factor = [](const at::Tensor& value, const at::Tensor& right) {
    return ((value * right).sum() / right.square().sum()).item<double>();
  };
  EXPECT_NEAR(factor(got[0], d_hidden), 1, 5e-4);
  EXPECT_NEAR(factor(got[1], d_weight), 1, 5e-4);
  // the sum over chunks is no multiple of a bfloat16's unit
  EXPECT_FALSE(at::equal(got[1], got[1].to(at::kBFloat16).to(at::kFloat)));
}

TEST_P(LinearCrossEntropy, IsZeroForNoTokens) {
  const auto hidden = at::randn({0, 3}).to(device()).requires_grad_(),
             weight = at::randn({10, 3}).to(device()).requires_grad_();
  const auto sum = linear_cross_entropy_sum(hidden, weight, at::empty({0}, at::kLong).to(device()));
  EXPECT_EQ(sum.item<float>(), 0);
  const auto gradients = torch::autograd::grad({sum}, {hidden, weight});
  EXPECT_EQ(gradients[0].numel(), 0);
  EXPECT_EQ(gradients[1].abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace lehr::kernels
