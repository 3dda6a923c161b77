// gelu.cu itself, compiled for the host, against the oracle, under every thread order, in the asan
// and the race build.
#include "kernels/gelu/gelu.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/gelu_cases.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;
using Bytes = std::vector<uint8_t>;

struct Inputs {
  RowShape shape;
  Float type, bias_type;
  Bytes x, bias, grad;
};

Inputs inputs_of(const RowShape& shape, Float type, Float bias_type) {
  const int64_t elements = shape.rows * shape.columns;
  return {shape,
          type,
          bias_type,
          packed(random_floats(elements, 1, 0, 2), type),
          packed(random_floats(shape.columns, 2), bias_type),
          packed(random_floats(elements, 3), type)};
}

// output, grad_x and grad_bias in one; `chunks` 0: without a bias
std::vector<float> on_stand_in(const Inputs& in, int64_t chunks, size_t skew) {
  const size_t columns = static_cast<size_t>(in.shape.columns);
  const Bytes all = cuda_host::run_under_every_schedule([&] {
    Buffer<uint8_t> x(in.x, skew), bias(in.bias, skew), grad(in.grad, skew);
    Buffer<uint8_t> output(in.x.size(), skew), grad_x(in.x.size(), skew);
    Buffer<float> partials(static_cast<size_t>(chunks) * columns), grad_bias(columns);
    const void* const added = chunks ? bias.data() : nullptr;
    EXPECT_EQ(gelu_cuda({x.data(), added, output.data(), in.shape.rows, in.shape.columns, in.type,
                         in.bias_type},
                        nullptr),
              cudaSuccess);
    EXPECT_EQ(gelu_backward_cuda(
                  {grad.data(), x.data(), added, grad_x.data(), partials.data(), grad_bias.data(),
                   chunks, in.shape.rows, in.shape.columns, in.type, in.bias_type},
                  nullptr),
              cudaSuccess);
    Bytes together = output.values();
    const Bytes grads = grad_x.values();
    together.insert(together.end(), grads.begin(), grads.end());
    if (chunks) {
      const uint8_t* const sums = reinterpret_cast<const uint8_t*>(grad_bias.data());
      together.insert(together.end(), sums, sums + columns * 4);
    }
    return together;
  });
  const auto split = all.begin() + static_cast<int64_t>(2 * in.x.size());
  std::vector<float> values = unpacked(Bytes(all.begin(), split), in.type);
  const std::vector<float> sums = unpacked(Bytes(split, all.end()), Float::kFloat32);
  values.insert(values.end(), sums.begin(), sums.end());
  return values;
}

std::vector<float> by_oracle(const Inputs& in, bool biased) {
  Bytes output(in.x.size()), grad_x(in.x.size());
  std::vector<float> sums(static_cast<size_t>(in.shape.columns));
  const void* const bias = biased ? in.bias.data() : nullptr;
  gelu_cpu(
      {in.x.data(), bias, output.data(), in.shape.rows, in.shape.columns, in.type, in.bias_type});
  gelu_backward_cpu({in.grad.data(), in.x.data(), bias, grad_x.data(), nullptr, sums.data(), 0,
                     in.shape.rows, in.shape.columns, in.type, in.bias_type});
  output.insert(output.end(), grad_x.begin(), grad_x.end());
  std::vector<float> values = unpacked(output, in.type);
  if (biased) values.insert(values.end(), sums.begin(), sums.end());
  return values;
}

void expect_agreement(const RowShape& shape, Float type, Float bias_type, int64_t chunks,
                      size_t skew = 0) {
  const Inputs in = inputs_of(shape, type, bias_type);
  const auto actual = on_stand_in(in, chunks, skew), expected = by_oracle(in, chunks > 0);
  EXPECT_EQ(difference(actual, expected, both_rounded_tolerance(type)), "")
      << shape.name() << " " << name_of(type) << " bias " << name_of(bias_type) << " chunks "
      << chunks << " skew " << skew;
}

TEST(GeluHost, AgreesWithTheOracleForEveryShapeAndType) {
  for (const RowShape& shape : gelu_shapes())
    for (Float type : all_float_types()) {
      expect_agreement(shape, type, type, 0);
      if (shape.rows == 0) continue;
      expect_agreement(shape, type, Float::kFloat32, gelu_cuda_chunks(shape.rows, shape.columns));
      expect_agreement(shape, type, type, 1);
    }
}

TEST(GeluHost, AddsRowsOfAChunkInAnyNumberOfChunks) {
  for (int64_t chunks : {1, 2, 3, 23})
    expect_agreement({23, 72}, Float::kFloat32, Float::kFloat32, chunks);
}

TEST(GeluHost, AgreesFromSkewedBuffers) {
  for (Float type : all_float_types())
    for (int64_t chunks : {0, 2}) expect_agreement({5, 64}, type, Float::kFloat32, chunks, 4);
}

TEST(GeluHost, GivesABiasWithoutRowsNoGradient) {
  Buffer<float> grad_bias(5);
  EXPECT_EQ(gelu_backward_cuda({nullptr, nullptr, &grad_bias, nullptr, nullptr, grad_bias.data(), 0,
                                0, 5, Float::kFloat32, Float::kFloat32},
                               nullptr),
            cudaSuccess);
  EXPECT_EQ(grad_bias.values(), std::vector<float>(5, 0.0f));
}

TEST(GeluHost, PlansForMoreRowsThan32BitsHold) {
  static_assert(gelu_cuda_chunks(int64_t{1} << 40, 4096) == 32);
  static_assert(gelu_cuda_chunks(int64_t{1} << 40, int64_t{1} << 33) == 1);
  static_assert(gelu_cuda_chunks(0, 4096) == 0);
}

}  // namespace
}  // namespace lehr::kernels
