// One differentiable op against its definition in ATen's ops at double precision: outputs and all
// gradients, for whatever device and dtype the inputs have. With it, what every op's test asks.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/kernels/floats.h"
#include "tests/kernels/simd_levels.h"

namespace lehr::kernels {

using Tensors = std::vector<at::Tensor>;
using Computation = std::function<Tensors(const Tensors&)>;

inline at::ScalarType scalar_type(Float type) {
  return type == Float::kFloat32    ? at::kFloat
         : type == Float::kBFloat16 ? at::kBFloat16
                                    : at::kHalf;
}
inline Float float_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat      ? Float::kFloat32
         : tensor.scalar_type() == at::kBFloat16 ? Float::kBFloat16
                                                 : Float::kFloat16;
}

inline at::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed, Float type, at::Device device,
                                float mean = 0, float deviation = 1) {
  const int64_t count = c10::multiply_integers(sizes);
  std::vector<float> values = random_floats(count, seed, mean, deviation);
  return at::tensor(values, at::kFloat).view(sizes).to(scalar_type(type)).to(device);
}

inline std::vector<double> doubles(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kCPU, at::kDouble).contiguous().view(-1);
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

inline void expect_close(const at::Tensor& actual, const at::Tensor& expected, Tolerance tolerance,
                         const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  EXPECT_EQ(difference(doubles(actual), doubles(expected), tolerance), "") << what;
}

// of output `index`: numbers that every dtype holds exactly
inline at::Tensor incoming_gradient(const at::Tensor& output, size_t index) {
  return at::tensor(random_floats(output.numel(), 77 + index), at::kFloat)
      .to(at::kHalf)
      .to(at::kBFloat16)
      .to(at::kHalf)
      .view(output.sizes())
      .to(output.options());
}

// outputs, then the gradients of the inputs that have one, for fixed gradients of the outputs
inline Tensors run_both_ways(const Computation& computation, const Tensors& inputs,
                             bool in_double) {
  Tensors leaves;
  for (const at::Tensor& input : inputs) {
    at::Tensor leaf = in_double ? input.detach().to(at::kCPU, at::kDouble) : input.detach();
    leaves.push_back((in_double ? leaf : leaf.clone()).requires_grad_(input.requires_grad()));
  }
  Tensors outputs = computation(leaves), grads;
  for (size_t i = 0; i < outputs.size(); ++i) grads.push_back(incoming_gradient(outputs[i], i));
  torch::autograd::backward(outputs, grads);
  Tensors results = outputs;
  for (const at::Tensor& leaf : leaves)
    if (leaf.requires_grad()) results.push_back(leaf.grad());
  return results;
}

// `tolerance` none: one rounding to the dtype of the output or gradient
inline void expect_agreement(const Computation& ours, const Computation& definition,
                             const Tensors& inputs, const std::string& what,
                             std::optional<Tolerance> tolerance = std::nullopt) {
  const Tensors actual = run_both_ways(ours, inputs, false);
  const Tensors expected = run_both_ways(definition, inputs, true);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_TRUE(actual[i].defined()) << what << " result " << i;
    expect_close(actual[i], expected[i],
                 tolerance.value_or(rounding_tolerance(float_type(actual[i]))),
                 what + " result " + std::to_string(i));
  }
}

inline void expect_same_bits_on_one_and_two_threads(const Computation& computation,
                                                    const Tensors& inputs) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Tensors one = run_both_ways(computation, inputs, false);
  at::set_num_threads(2);
  const Tensors two = run_both_ways(computation, inputs, false);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << "result " << i;
}

// on the meta device: the shapes, strides and dtypes of the real outputs and gradients
inline void expect_meta_like_the_real_one(const Computation& computation, const Tensors& inputs) {
  Tensors meta_inputs;
  for (const at::Tensor& input : inputs)
    meta_inputs.push_back(input.detach().to(at::kMeta).requires_grad_(input.requires_grad()));
  const Tensors real = run_both_ways(computation, inputs, false);
  Tensors meta = computation(meta_inputs), grads;
  for (const at::Tensor& output : meta) grads.push_back(at::empty_like(output));
  torch::autograd::backward(meta, grads);
  for (const at::Tensor& leaf : meta_inputs)
    if (leaf.requires_grad()) meta.push_back(leaf.grad());
  ASSERT_EQ(meta.size(), real.size());
  for (size_t i = 0; i < real.size(); ++i) {
    EXPECT_TRUE(meta[i].is_meta());
    EXPECT_EQ(meta[i].sizes(), real[i].sizes());
    EXPECT_EQ(meta[i].strides(), real[i].strides());
    EXPECT_EQ(meta[i].scalar_type(), real[i].scalar_type());
  }
}

// a gradient of the gradient is refused, not lost
inline void expect_no_second_derivative(const Computation& computation, const at::Tensor& input) {
  const at::Tensor x = input.detach().clone().requires_grad_();
  const at::Tensor loss = computation({x})[0].square().sum();
  const at::Tensor grad = torch::autograd::grad({loss}, {x}, {}, true, true)[0];
  EXPECT_THROW(torch::autograd::grad({grad.sum()}, {x}), c10::Error);
}

// what an op says about its arguments
inline std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "accepted";
}
inline void expect_message(const std::function<void()>& call, const std::string& words) {
  EXPECT_NE(message_of(call).find(words), std::string::npos)
      << message_of(call) << "\nhas no: " << words;
}

}  // namespace lehr::kernels
