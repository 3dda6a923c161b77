// swiglu.cu itself, compiled for the host, against the oracle, under every thread order, in the
// asan and the race build.
#include "kernels/swiglu/swiglu.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/swiglu_cases.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;
using Bytes = std::vector<uint8_t>;

void expect_agreement(const RowShape& shape, Float type, size_t skew) {
  const int64_t elements = shape.rows * shape.columns;
  const Bytes gate_up = packed(random_floats(2 * elements, 1, 0, 3), type);
  const Bytes grad = packed(random_floats(elements, 2), type);
  const Bytes actual = cuda_host::run_under_every_schedule([&] {
    Buffer<uint8_t> in(gate_up, skew), g(grad, skew), out(grad.size(), skew);
    Buffer<uint8_t> grad_in(gate_up.size(), skew);
    EXPECT_EQ(swiglu_cuda({in.data(), out.data(), shape.rows, shape.columns, type}, nullptr),
              cudaSuccess);
    EXPECT_EQ(swiglu_backward_cuda(
                  {g.data(), in.data(), grad_in.data(), shape.rows, shape.columns, type}, nullptr),
              cudaSuccess);
    Bytes together = out.values();
    const Bytes more = grad_in.values();
    together.insert(together.end(), more.begin(), more.end());
    return together;
  });
  Bytes expected(grad.size()), more(gate_up.size());
  swiglu_cpu({gate_up.data(), expected.data(), shape.rows, shape.columns, type});
  swiglu_backward_cpu({grad.data(), gate_up.data(), more.data(), shape.rows, shape.columns, type});
  expected.insert(expected.end(), more.begin(), more.end());
  EXPECT_EQ(
      difference(unpacked(actual, type), unpacked(expected, type), both_rounded_tolerance(type)),
      "")
      << shape.name() << " " << name_of(type) << " skew " << skew;
}

TEST(SwiGluHost, AgreesWithTheOracleForEveryShapeAndType) {
  for (const RowShape& shape : swiglu_shapes())
    for (Float type : all_float_types()) expect_agreement(shape, type, 0);
}

TEST(SwiGluHost, AgreesFromSkewedBuffers) {
  for (Float type : all_float_types()) expect_agreement({5, 64}, type, 4);
}

TEST(SwiGluHost, WritesTheGradientOverItsInput) {
  const Bytes gate_up = packed(random_floats(2 * 3 * 40, 1), Float::kBFloat16);
  const Bytes grad = packed(random_floats(3 * 40, 2), Float::kBFloat16);
  const auto run = [&](bool in_place) {
    return cuda_host::run_under_every_schedule([&] {
      Buffer<uint8_t> in(gate_up), g(grad), apart(gate_up.size());
      uint8_t* const to = in_place ? in.data() : apart.data();
      EXPECT_EQ(swiglu_backward_cuda({g.data(), in.data(), to, 3, 40, Float::kBFloat16}, nullptr),
                cudaSuccess);
      return in_place ? in.values() : apart.values();
    });
  };
  EXPECT_EQ(run(true), run(false));
}

}  // namespace
}  // namespace lehr::kernels
