// rope.cu itself, compiled for the host, against the oracle, under every thread order, in the asan
// and the race build.
#include "kernels/rope/rope.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/rope_cases.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;
using Bytes = std::vector<uint8_t>;

void expect_agreement(const RopeShape& shape, Float type, bool inverse, bool in_place,
                      size_t skew = 0) {
  const Bytes qkv = packed(random_floats(shape.elements(), 1), type);
  const std::vector<float> table = rope_table(shape.positions, shape.head_dim);
  const auto args = [&](const void* in, void* out, const float* cos_sin) {
    return Rope{in,
                out,
                cos_sin,
                shape.batch * shape.positions,
                std::max<int64_t>(1, shape.positions),
                shape.heads + shape.kv_heads,
                shape.kv_heads,
                shape.head_dim,
                inverse,
                type};
  };
  const Bytes actual = cuda_host::run_under_every_schedule([&] {
    Buffer<uint8_t> in(qkv, skew), out(qkv.size(), skew);
    Buffer<float> cos_sin(table);
    Buffer<uint8_t>& to = in_place ? in : out;
    EXPECT_EQ(rope_cuda(args(in.data(), to.data(), cos_sin.data()), nullptr), cudaSuccess);
    return to.values();
  });
  Bytes expected(qkv.size());
  rope_cpu(args(qkv.data(), expected.data(), table.data()));
  EXPECT_EQ(
      difference(unpacked(actual, type), unpacked(expected, type), both_rounded_tolerance(type)),
      "")
      << shape.name() << " " << name_of(type) << (inverse ? " inverse" : "")
      << (in_place ? " in place" : "") << " skew " << skew;
}

TEST(RopeHost, AgreesWithTheOracleForEveryShapeAndType) {
  for (const RopeShape& shape : rope_shapes())
    for (Float type : all_float_types())
      for (bool inverse : {false, true})
        for (bool in_place : {false, true}) expect_agreement(shape, type, inverse, in_place);
}

TEST(RopeHost, AgreesFromSkewedBuffers) {
  for (Float type : all_float_types()) expect_agreement({2, 5, 3, 1, 32}, type, false, true, 4);
}

TEST(RopeHost, RefusesRowsThatAnIntegerCannotHold) {
  float dummy[2] = {};
  EXPECT_EQ(
      rope_cuda({dummy, dummy, dummy, 1, 1, int64_t{1} << 20, 1, 4096, false, Float::kFloat32},
                nullptr),
      cudaErrorInvalidValue);
}

}  // namespace
}  // namespace lehr::kernels
