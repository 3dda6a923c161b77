// rms_norm.cu itself, compiled for the host, against the oracle, under every thread order, in the
// asan and the race build.
#include "kernels/common/chunks.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/layer_norm_cases.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;
using Bytes = std::vector<uint8_t>;

struct Inputs {
  RowShape shape;
  Float type, parameter_type;
  Bytes x, residual, weight, grad, grad_sum;
};

Inputs inputs_of(const RowShape& shape, Float type, Float parameter_type) {
  const int64_t elements = shape.rows * shape.columns;
  return {shape,
          type,
          parameter_type,
          packed(random_floats(elements, 1, 0.5f), type),
          packed(random_floats(elements, 2), type),
          packed(random_floats(shape.columns, 3, 1), parameter_type),
          packed(random_floats(elements, 5), type),
          packed(random_floats(elements, 6), type)};
}

struct Outputs {
  std::vector<float> output, sum, rstd, grad_x, grad_weight;
};

// all of a call's outputs as one vector of bytes, so that schedules can be compared
void append(Bytes* all, const Bytes& part) { all->insert(all->end(), part.begin(), part.end()); }
Bytes cut(Bytes* all, size_t count) {
  Bytes part(all->begin(), all->begin() + static_cast<int64_t>(count));
  all->erase(all->begin(), all->begin() + static_cast<int64_t>(count));
  return part;
}

// forward, then backward on its rstd; `skew` in bytes for every buffer of elements
Outputs on_stand_in(const Inputs& in, bool adds, int64_t chunks, size_t skew) {
  const size_t elements = in.x.size(), rows = static_cast<size_t>(in.shape.rows);
  const size_t columns = static_cast<size_t>(in.shape.columns);
  Bytes all = cuda_host::run_under_every_schedule([&] {
    Buffer<uint8_t> x(in.x, skew), residual(in.residual, skew), weight(in.weight, skew);
    Buffer<uint8_t> grad(in.grad, skew), grad_sum(in.grad_sum, skew);
    Buffer<uint8_t> output(elements, skew), sum(elements, skew), grad_x(elements, skew);
    Buffer<uint8_t> rstd(rows * 4), grad_weight(columns * 4);
    Buffer<float> partials(static_cast<size_t>(chunks) * columns);
    float* const rstd_data = reinterpret_cast<float*>(rstd.data());
    EXPECT_EQ(rms_norm_cuda({x.data(), adds ? residual.data() : nullptr, weight.data(),
                             output.data(), adds ? sum.data() : nullptr, rstd_data, in.shape.rows,
                             in.shape.columns, 1e-5f, in.type, in.parameter_type},
                            nullptr),
              cudaSuccess);
    EXPECT_EQ(rms_norm_backward_cuda(
                  {grad.data(), adds ? grad_sum.data() : nullptr, adds ? sum.data() : x.data(),
                   weight.data(), rstd_data, grad_x.data(), partials.data(),
                   reinterpret_cast<float*>(grad_weight.data()), in.shape.rows, in.shape.columns,
                   chunks, in.type, in.parameter_type},
                  nullptr),
              cudaSuccess);
    Bytes together = output.values();
    append(&together, adds ? sum.values() : Bytes(elements));
    append(&together, rstd.values());
    append(&together, grad_x.values());
    append(&together, grad_weight.values());
    return together;
  });
  Outputs out;
  out.output = unpacked(cut(&all, elements), in.type);
  out.sum = unpacked(cut(&all, elements), in.type);
  out.rstd = unpacked(cut(&all, rows * 4), Float::kFloat32);
  out.grad_x = unpacked(cut(&all, elements), in.type);
  out.grad_weight = unpacked(all, Float::kFloat32);
  return out;
}

Outputs by_oracle(const Inputs& in, bool adds) {
  Bytes output(in.x.size()), sum(in.x.size()), grad_x(in.x.size());
  Outputs out;
  out.rstd.resize(static_cast<size_t>(in.shape.rows));
  out.grad_weight.resize(static_cast<size_t>(in.shape.columns));
  rms_norm_cpu({in.x.data(), adds ? in.residual.data() : nullptr, in.weight.data(), output.data(),
                adds ? sum.data() : nullptr, out.rstd.data(), in.shape.rows, in.shape.columns,
                1e-5f, in.type, in.parameter_type});
  rms_norm_backward_cpu({in.grad.data(), adds ? in.grad_sum.data() : nullptr,
                         adds ? sum.data() : in.x.data(), in.weight.data(), out.rstd.data(),
                         grad_x.data(), nullptr, out.grad_weight.data(), in.shape.rows,
                         in.shape.columns, 0, in.type, in.parameter_type});
  out.output = unpacked(output, in.type);
  out.sum = unpacked(sum, in.type);
  out.grad_x = unpacked(grad_x, in.type);
  return out;
}

void expect_agreement(const RowShape& shape, Float type, Float parameter_type, bool adds,
                      int64_t chunks, size_t skew = 0) {
  const Inputs in = inputs_of(shape, type, parameter_type);
  const Outputs actual = on_stand_in(in, adds, chunks, skew), expected = by_oracle(in, adds);
  const std::string what = shape.name() + " " + name_of(type) + " weights " +
                           name_of(parameter_type) + (adds ? " added" : "") + " chunks " +
                           std::to_string(chunks) + " skew " + std::to_string(skew);
  const Tolerance typed = both_rounded_tolerance(type), exact = rounding_tolerance(Float::kFloat32);
  EXPECT_EQ(difference(actual.output, expected.output, typed), "") << what;
  EXPECT_EQ(difference(actual.sum, expected.sum, {0, 0}), "") << what;
  EXPECT_EQ(difference(actual.rstd, expected.rstd, exact), "") << what;
  EXPECT_EQ(difference(actual.grad_x, expected.grad_x, typed), "") << what;
  EXPECT_EQ(difference(actual.grad_weight, expected.grad_weight, exact), "") << what;
}

TEST(RmsNormHost, AgreesWithTheOracleForEveryShapeAndType) {
  for (const RowShape& shape : norm_shapes())
    for (Float type : all_float_types())
      for (bool adds : {false, true}) {
        // the large ones once: they are slow here
        if (shape.rows * shape.columns > 5000 && adds != (type == Float::kBFloat16)) continue;
        expect_agreement(shape, type, Float::kFloat32, adds,
                         cuda_row_chunks(shape.rows, shape.columns));
      }
}

TEST(RmsNormHost, TakesWeightsOfItsOwnType) {
  for (Float type : {Float::kBFloat16, Float::kFloat16})
    for (const RowShape& shape : {RowShape{5, 8}, RowShape{7, 33}, RowShape{3, 264}})
      expect_agreement(shape, type, type, true, shape.rows);
}

TEST(RmsNormHost, AddsRowsOfAChunkInAnyNumberOfChunks) {
  for (int64_t chunks : {1, 2, 3, 23})
    expect_agreement({23, 72}, Float::kFloat32, Float::kFloat32, true, chunks);
}

TEST(RmsNormHost, AgreesFromSkewedBuffers) {
  for (Float type : all_float_types()) expect_agreement({5, 64}, type, Float::kFloat32, true, 2, 4);
}

TEST(RmsNormHost, WritesTheGradientOverTheSumsGradient) {
  const Inputs in = inputs_of({5, 24}, Float::kBFloat16, Float::kFloat32);
  const std::vector<float> rstd = random_floats(5, 9, 1, 0.1f);
  const auto run = [&](bool in_place) {
    return cuda_host::run_under_every_schedule([&] {
      Buffer<uint8_t> x(in.x), weight(in.weight), grad(in.grad), grad_sum(in.grad_sum);
      Buffer<uint8_t> apart(in.x.size());
      Buffer<float> rstds(rstd), partials(3 * 24), grad_weight(24);
      uint8_t* const grad_x = in_place ? grad_sum.data() : apart.data();
      EXPECT_EQ(rms_norm_backward_cuda(
                    {grad.data(), grad_sum.data(), x.data(), weight.data(), rstds.data(), grad_x,
                     partials.data(), grad_weight.data(), 5, 24, 3, in.type, in.parameter_type},
                    nullptr),
                cudaSuccess);
      return in_place ? grad_sum.values() : apart.values();
    });
  };
  EXPECT_EQ(run(true), run(false));
}

}  // namespace
}  // namespace lehr::kernels
