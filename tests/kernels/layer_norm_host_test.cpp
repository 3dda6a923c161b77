// layer_norm.cu itself, compiled for the host, against the oracle, under every thread order, in the
// asan and the race build.
#include "kernels/common/chunks.h"
#include "kernels/common/reduce.h"
#include "kernels/layer_norm/layer_norm.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/layer_norm_cases.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;
using Bytes = std::vector<uint8_t>;

struct Inputs {
  RowShape shape;
  Float type, parameter_type;
  Bytes x, residual, weight, bias, grad, grad_sum;
};

Inputs inputs_of(const RowShape& shape, Float type, Float parameter_type) {
  const int64_t elements = shape.rows * shape.columns;
  return {shape,
          type,
          parameter_type,
          packed(random_floats(elements, 1, 0.5f), type),
          packed(random_floats(elements, 2), type),
          packed(random_floats(shape.columns, 3, 1), parameter_type),
          packed(random_floats(shape.columns, 4), parameter_type),
          packed(random_floats(elements, 5), type),
          packed(random_floats(elements, 6), type)};
}

struct Outputs {
  std::vector<float> output, sum, stats, grad_x, grad_parameters;
};

// all of a call's outputs as one vector of bytes, so that schedules can be compared
void append(Bytes* all, const Bytes& part) { all->insert(all->end(), part.begin(), part.end()); }
Bytes cut(Bytes* all, size_t count) {
  Bytes part(all->begin(), all->begin() + static_cast<int64_t>(count));
  all->erase(all->begin(), all->begin() + static_cast<int64_t>(count));
  return part;
}

// forward, then backward on its stats; `skew` in bytes for every buffer of elements
Outputs on_stand_in(const Inputs& in, bool adds, int64_t chunks, size_t skew) {
  const size_t elements = in.x.size(), rows = static_cast<size_t>(in.shape.rows);
  const size_t columns = static_cast<size_t>(in.shape.columns);
  Bytes all = cuda_host::run_under_every_schedule([&] {
    Buffer<uint8_t> x(in.x, skew), residual(in.residual, skew), weight(in.weight, skew);
    Buffer<uint8_t> bias(in.bias, skew), grad(in.grad, skew), grad_sum(in.grad_sum, skew);
    Buffer<uint8_t> output(elements, skew), sum(elements, skew), grad_x(elements, skew);
    Buffer<uint8_t> stats(2 * rows * 4), grad_parameters(2 * columns * 4);
    Buffer<float> partials(static_cast<size_t>(chunks) * 2 * columns);
    float* const stats_data = reinterpret_cast<float*>(stats.data());
    EXPECT_EQ(layer_norm_cuda({x.data(), adds ? residual.data() : nullptr, weight.data(),
                               bias.data(), output.data(), adds ? sum.data() : nullptr, stats_data,
                               in.shape.rows, in.shape.columns, 1e-5f, in.type, in.parameter_type},
                              nullptr),
              cudaSuccess);
    EXPECT_EQ(layer_norm_backward_cuda(
                  {grad.data(), adds ? grad_sum.data() : nullptr, adds ? sum.data() : x.data(),
                   weight.data(), stats_data, grad_x.data(), partials.data(),
                   reinterpret_cast<float*>(grad_parameters.data()), in.shape.rows,
                   in.shape.columns, chunks, in.type, in.parameter_type},
                  nullptr),
              cudaSuccess);
    Bytes together = output.values();
    append(&together, adds ? sum.values() : Bytes(elements));
    append(&together, stats.values());
    append(&together, grad_x.values());
    append(&together, grad_parameters.values());
    return together;
  });
  Outputs out;
  out.output = unpacked(cut(&all, elements), in.type);
  out.sum = unpacked(cut(&all, elements), in.type);
  out.stats = unpacked(cut(&all, 2 * rows * 4), Float::kFloat32);
  out.grad_x = unpacked(cut(&all, elements), in.type);
  out.grad_parameters = unpacked(all, Float::kFloat32);
  return out;
}

Outputs by_oracle(const Inputs& in, bool adds) {
  Bytes output(in.x.size()), sum(in.x.size()), grad_x(in.x.size());
  Outputs out;
  out.stats.resize(2 * static_cast<size_t>(in.shape.rows));
  out.grad_parameters.resize(2 * static_cast<size_t>(in.shape.columns));
  layer_norm_cpu({in.x.data(), adds ? in.residual.data() : nullptr, in.weight.data(),
                  in.bias.data(), output.data(), adds ? sum.data() : nullptr, out.stats.data(),
                  in.shape.rows, in.shape.columns, 1e-5f, in.type, in.parameter_type});
  layer_norm_backward_cpu({in.grad.data(), adds ? in.grad_sum.data() : nullptr,
                           adds ? sum.data() : in.x.data(), in.weight.data(), out.stats.data(),
                           grad_x.data(), nullptr, out.grad_parameters.data(), in.shape.rows,
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
  EXPECT_EQ(difference(actual.stats, expected.stats, exact), "") << what;
  EXPECT_EQ(difference(actual.grad_x, expected.grad_x, typed), "") << what;
  EXPECT_EQ(difference(actual.grad_parameters, expected.grad_parameters, exact), "") << what;
}

TEST(LayerNormHost, AgreesWithTheOracleForEveryShapeAndType) {
  for (const RowShape& shape : norm_shapes())
    for (Float type : all_float_types())
      for (bool adds : {false, true}) {
        // the large ones once: they are slow here
        if (shape.rows * shape.columns > 5000 && adds != (type == Float::kBFloat16)) continue;
        expect_agreement(shape, type, Float::kFloat32, adds,
                         cuda_row_chunks(shape.rows, shape.columns));
      }
}

TEST(LayerNormHost, TakesWeightsOfItsOwnType) {
  for (Float type : {Float::kBFloat16, Float::kFloat16})
    for (const RowShape& shape : {RowShape{5, 8}, RowShape{7, 33}, RowShape{3, 264}})
      expect_agreement(shape, type, type, true, shape.rows);
}

TEST(LayerNormHost, AddsRowsOfAChunkInAnyNumberOfChunks) {
  for (int64_t chunks : {1, 2, 3, 23})
    expect_agreement({23, 72}, Float::kFloat32, Float::kFloat32, true, chunks);
}

TEST(LayerNormHost, AgreesFromSkewedBuffers) {
  for (Float type : all_float_types()) expect_agreement({5, 64}, type, Float::kFloat32, true, 2, 4);
}

TEST(LayerNormHost, WritesTheGradientOverTheSumsGradient) {
  const Inputs in = inputs_of({5, 24}, Float::kBFloat16, Float::kFloat32);
  std::vector<float> stats = random_floats(10, 9, 1, 0.1f);
  const auto run = [&](bool in_place) {
    return cuda_host::run_under_every_schedule([&] {
      Buffer<uint8_t> x(in.x), weight(in.weight), grad(in.grad), grad_sum(in.grad_sum);
      Buffer<uint8_t> apart(in.x.size());
      Buffer<float> stat(stats), partials(3 * 2 * 24), grad_parameters(2 * 24);
      uint8_t* const grad_x = in_place ? grad_sum.data() : apart.data();
      EXPECT_EQ(layer_norm_backward_cuda(
                    {grad.data(), grad_sum.data(), x.data(), weight.data(), stat.data(), grad_x,
                     partials.data(), grad_parameters.data(), 5, 24, 3, in.type, in.parameter_type},
                    nullptr),
                cudaSuccess);
      return in_place ? grad_sum.values() : apart.values();
    });
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(LayerNormHost, PlansForMoreRowsThan32BitsHold) {
  constexpr int64_t kRows = (int64_t{1} << 40) + 6;
  static_assert(cuda_row_chunks(kRows, 768) == 682);
  static_assert(chunk_begin(3, 7, kRows) == kRows / 7 * 3 + 1);
  static_assert(chunk_begin(7, 7, kRows) == kRows);
  unsigned blocks = 0;
  ASSERT_EQ(grid_stride_blocks(kRows * row_threads(1 << 20), kMaxRowThreads, &blocks), cudaSuccess);
  EXPECT_EQ(blocks, 2u * 512 / kMaxRowThreads * 4);  // what the stand-in's device holds, four times
}

}  // namespace
}  // namespace lehr::kernels
