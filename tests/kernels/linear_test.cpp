// The ops lehr::linear and lehr::linear_gelu_linear: ATen in double defines both and their
// gradients. On a CPU they are ATen's ops; linear_host_test.cpp has the launcher.
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>

#include "models/ops.h"
#include "tests/kernels/device.h"
#include "tests/kernels/linear_cases.h"

namespace lehr::kernels {
namespace {

class LinearOp : public OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, LinearOp, testing::Values(at::kCPU, at::kCUDA), device_name);

TEST_P(LinearOp, AgreesWithAtenBothWaysForEveryShapeTypeAndMemory) {
  expect_linear_agrees_in_every_case(device());
}

TEST_P(LinearOp, TakesAnyNumberOfDimensionsAndNoBias) {
  Tensors in = linear_inputs({12, 8, 16, 8}, Float::kFloat32, device());
  in[0] = in[0].detach().view({2, 1, 6, 8}).requires_grad_();
  const auto tolerance = mlp_tolerance(Float::kFloat32);
  expect_agreement(mlp_by_lehr(Memory::kRowMajor), mlp_by_aten(Float::kFloat32), in, "4",
                   tolerance);
  expect_agreement(
      [](const Tensors& t) -> Tensors { return {kernels::linear(t[0], t[1], std::nullopt)}; },
      [](const Tensors& t) -> Tensors { return {at::linear(t[0], t[1])}; }, {in[0], in[1]},
      "no bias", tolerance);
}

TEST_P(LinearOp, GivesEachInputItsGradientAlone) {
  const Tensors all = linear_inputs({6, 8, 16, 8}, Float::kFloat32, device());
  for (size_t wanted = 0; wanted < all.size(); ++wanted) {
    Tensors in;
    for (size_t i = 0; i < all.size(); ++i)
      in.push_back(all[i].detach().clone().requires_grad_(i == wanted));
    expect_agreement(mlp_by_lehr(Memory::kTransposed), mlp_by_aten(Float::kFloat32), in,
                     "input " + std::to_string(wanted), mlp_tolerance(Float::kFloat32));
  }
}

TEST_P(LinearOp, GivesAWeightItsGradientInTheWeightsMemoryOrder) {
  const Tensors in = linear_inputs({6, 8, 16, 8}, Float::kFloat32, device());
  for (bool transposed : {false, true}) {
    const at::Tensor weight =
        laid_out(in[1].detach(), transposed ? Memory::kTransposed : Memory::kRowMajor)
            .requires_grad_();
    const at::Tensor sum = kernels::linear(in[0], weight, in[2]).sum();
    EXPECT_EQ(torch::autograd::grad({sum}, {weight})[0].strides(), weight.strides());
  }
}

TEST_P(LinearOp, GivesTheSameBitsTwice) {
  const Tensors in = linear_inputs({300, 64, 256, 64}, Float::kBFloat16, device());
  const Tensors one = run_both_ways(mlp_by_lehr(Memory::kTransposed), in, false);
  const Tensors two = run_both_ways(mlp_by_lehr(Memory::kTransposed), in, false);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
}

// training.precision: bf16-mixed with training.kernels: check
TEST_P(LinearOp, IsWhatModelsRunOnAGpuUnderAutocastToo) {
  Tensors in;
  for (const at::Tensor& t : linear_inputs({6, 8, 16, 8}, Float::kBFloat16, device()))
    in.push_back(t.detach().to(at::kFloat).requires_grad_());
  const auto by_models = [&](const Tensors& t) -> Tensors {
    const models::KernelScope scope(models::Kernels::kCheck);
    at::autocast::set_autocast_enabled(device().type(), true);
    at::autocast::set_autocast_dtype(device().type(), at::kBFloat16);
    const at::Tensor y = models::linear_gelu_linear(t[0], t[1], t[2], t[3], t[4]);
    at::autocast::set_autocast_enabled(device().type(), false);
    return {y};
  };
  expect_agreement(
      by_models, mlp_by_aten(Float::kBFloat16, /*apart=*/device().is_cpu()), in, "autocast",
      device().is_cpu() ? Tolerance{0x1p-9, 0x1.02p-8} : mlp_tolerance(Float::kBFloat16));
  EXPECT_EQ(by_models(in)[0].scalar_type(), at::kBFloat16);
  const auto differences = models::kernel_differences();
  EXPECT_EQ(differences.count("linear_gelu_linear"), device().is_cuda());
  if (device().is_cuda()) {
    EXPECT_LT(differences.at("linear_gelu_linear"), 0x1p-5);
  }
}

TEST_P(LinearOp, NamesWhatIsWrongWithItsArguments) {
  const Tensors in = linear_inputs({4, 6, 8, 2}, Float::kFloat32, device());
  const auto call = [&](at::Tensor x, at::Tensor weight, at::Tensor bias) {
    return [=] { kernels::linear(x, weight, bias); };
  };
  expect_message(call(in[0].to(at::kDouble), in[1], in[2]),
                 "linear: x must be float32, bfloat16 or float16, not Double");
  expect_message(call(in[0], in[1].t(), in[2]), "fit x's last one, 6, not be [6, 8]");
  expect_message(call(in[0], in[1].to(at::kHalf), in[2]), "weight must be Float on");
  expect_message(call(in[0], in[1], in[2].slice(0, 1)), "bias must be [8], not [7]");
  expect_message(call(in[0], in[1], in[2].to(at::kHalf)), "bias must be Float on");
  expect_message([&] { linear_grad_input_by({}, in[0], in[1].t(), in[0]); },
                 "what went into GELU is [4, 6] for a grad of [4, 6]");
}

TEST(LinearMeta, HasTheShapesOfTheRealOne) {
  for (const LinearShape& shape : linear_shapes()) {
    const Tensors in = linear_inputs(shape, Float::kBFloat16, at::kCPU);
    expect_meta_like_the_real_one(mlp_by_lehr(Memory::kTransposed), in);
  }
}

TEST(LinearAutograd, RefusesASecondDerivative) {
  const Tensors in = linear_inputs({6, 8, 16, 8}, Float::kFloat32, at::kCPU);
  expect_no_second_derivative(
      [&](const Tensors& x) -> Tensors {
        return {linear_gelu_linear(x[0], in[1], in[2], in[3], in[4])};
      },
      in[0]);
}

}  // namespace
}  // namespace lehr::kernels
