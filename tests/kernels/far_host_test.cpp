// Every .cu file on tensors of more than 2^32 elements: of those, and of the blocks that would walk
// them, only the last row's exist, and it must come out as the oracle has it alone. A row, column,
// pack or element that is counted in 32 bits anywhere on the way ends elsewhere.
#include "kernels/adamw/adamw.h"
#include "kernels/common/reduce.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gelu/gelu.h"
#include "kernels/image_normalize/image_normalize.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/swiglu/swiglu.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/far_memory.h"
#include "tests/kernels/floats.h"

namespace lehr::kernels {
namespace {

using cuda_host::FarDevice;

constexpr int64_t kThreads = 256;  // a block of most kernels here
constexpr int64_t kDeviceThreads = 512;

// A tensor of bfloat16; with packs of 16 bytes, or skewed, so that kernels take single elements.
struct Shape {
  int64_t rows, columns;
  bool wide;
  int processors;  // so many that a grid-stride loop turns one to three times

  int64_t last() const { return rows - 1; }
  int64_t width() const { return wide ? 8 : 1; }
  int64_t packs() const { return columns / width(); }
};
std::vector<Shape> shapes() {
  constexpr int64_t kRows = (int64_t{1} << 22) + 3;  // of 1024: 2^32 elements and three rows
  return {{kRows, 1024, true, 1 << 20},
          {kRows, 1024, false, 1 << 20},
          {(int64_t{1} << 31) + 3, 1, false, 1 << 24}};  // more rows than an int counts
}

// [rows, columns] elements of T, all zero
template <class T = BFloat16>
class Far {
 public:
  Far(const Shape& shape, int64_t columns)
      : columns_(columns),
        memory_(shape.rows * columns * int64_t{sizeof(T)} + 16),
        data_(memory_.as<T>() + (shape.wide ? 0 : 1)) {}
  explicit Far(const Shape& shape) : Far(shape, shape.columns) {}
  // its last row filled with random numbers
  Far(const Shape& shape, int64_t columns, uint64_t seed) : Far(shape, columns) {
    const std::vector<float> values = random_floats(columns, seed);
    for (int64_t c = 0; c < columns; ++c)
      row(shape.last())[c] = rounded<T>(values[static_cast<size_t>(c)]);
  }
  T* data() { return data_; }
  T* row(int64_t r) { return data_ + r * columns_; }
  std::vector<float> values(int64_t r) {
    std::vector<float> list;
    for (int64_t c = 0; c < columns_; ++c) list.push_back(widened(row(r)[c]));
    return list;
  }

 private:
  int64_t columns_;
  FarMemory memory_;
  T* data_;
};

// one row for the oracle
std::vector<BFloat16> one_row(int64_t columns) {
  return std::vector<BFloat16>(static_cast<size_t>(columns));
}
std::vector<float> widened_all(const std::vector<BFloat16>& row) {
  std::vector<float> list;
  for (BFloat16 value : row) list.push_back(widened(value));
  return list;
}

constexpr Float kType = Float::kBFloat16;

// Runs `launch` on the blocks that reach items [begin, end), the last ones of a grid-stride loop,
// `items` of them a block of `threads`.
template <class Launch>
void run_the_last(const Shape& shape, int64_t begin, int64_t end, int64_t items, int64_t threads,
                  Launch launch, int64_t waves = 4) {
  const int64_t most = shape.processors * std::max<int64_t>(kDeviceThreads / threads, 1) * waves;
  const int64_t stride = std::min((end + items - 1) / items, most) * items;
  const int64_t first = begin % stride / items;
  const FarDevice device(shape.processors, first, (end - 1) % stride / items - first + 1);
  cuda_host::take_findings();
  EXPECT_EQ(launch(), cudaSuccess);
  EXPECT_EQ(cuda_host::take_findings(), std::vector<std::string>{});
}

void expect_row(const std::vector<float>& actual, const std::vector<float>& expected,
                const Shape& shape, Float type = kType) {
  EXPECT_EQ(difference(actual, expected, both_rounded_tolerance(type)), "")
      << shape.rows << " x " << shape.columns << (shape.wide ? " wide" : " narrow");
}

TEST(FarRows, OfLayerNorm) {
  for (const Shape& s : shapes()) {
    const int64_t n = s.columns;
    Far x(s, n, 1), residual(s, n, 2), output(s), sum(s);
    Far<float> stats(s, 2);
    const std::vector<float> weight = random_floats(n, 3, 1), bias = random_floats(n, 4);
    run_the_last(s, s.last(), s.rows, 1, row_threads(s.packs()), [&] {
      return layer_norm_cuda({x.data(), residual.data(), weight.data(), bias.data(), output.data(),
                              sum.data(), stats.data(), s.rows, n, 1e-5f, kType, Float::kFloat32},
                             nullptr);
    });
    auto y = one_row(n), total = one_row(n);
    float one[2];
    layer_norm_cpu({x.row(s.last()), residual.row(s.last()), weight.data(), bias.data(), y.data(),
                    total.data(), one, 1, n, 1e-5f, kType, Float::kFloat32});
    expect_row(output.values(s.last()), widened_all(y), s);
    expect_row(sum.values(s.last()), widened_all(total), s);
    expect_row({stats.data()[s.last()], stats.data()[s.rows + s.last()]}, {one[0], one[1]}, s,
               Float::kFloat32);
  }
}

TEST(FarRows, OfLayerNormBackward) {
  for (const Shape& s : shapes()) {
    const int64_t n = s.columns;
    Far grad(s, n, 1), grad_sum(s, n, 2), x(s, n, 3), grad_x(s);
    Far<float> stats(s, 2), partials(s, 2 * n);
    const std::vector<float> weight = random_floats(n, 4, 1);
    std::vector<float> parameters(2 * static_cast<size_t>(n));
    stats.data()[s.last()] = 0.25f;
    stats.data()[s.rows + s.last()] = 1.5f;
    // a chunk a row; where rows are short, every third
    const int64_t chunks = n > 1 ? s.rows : int64_t{1} << 30, chunk = s.last() % chunks;
    {
      const FarDevice device(s.processors, chunk, 1);
      EXPECT_EQ(
          layer_norm_backward_cuda(
              {grad.data(), grad_sum.data(), x.data(), weight.data(), stats.data(), grad_x.data(),
               partials.data(), parameters.data(), s.rows, n, chunks, kType, Float::kFloat32},
              nullptr),
          cudaSuccess);
    }
    auto dx = one_row(n);
    const float one[2] = {0.25f, 1.5f};
    std::vector<float> expected(2 * static_cast<size_t>(n));
    layer_norm_backward_cpu({grad.row(s.last()), grad_sum.row(s.last()), x.row(s.last()),
                             weight.data(), one, dx.data(), nullptr, expected.data(), 1, n, 0,
                             kType, Float::kFloat32});
    expect_row(grad_x.values(s.last()), widened_all(dx), s);
    expect_row(partials.values(chunk), expected, s, Float::kFloat32);
  }
}

TEST(FarRows, OfRmsNorm) {
  for (const Shape& s : shapes()) {
    const int64_t n = s.columns;
    Far x(s, n, 1), residual(s, n, 2), output(s), sum(s);
    Far<float> rstd(s, 1);
    const std::vector<float> weight = random_floats(n, 3, 1);
    run_the_last(s, s.last(), s.rows, 1, row_threads(s.packs()), [&] {
      return rms_norm_cuda({x.data(), residual.data(), weight.data(), output.data(), sum.data(),
                            rstd.data(), s.rows, n, 1e-5f, kType, Float::kFloat32},
                           nullptr);
    });
    auto y = one_row(n), total = one_row(n);
    float one = 0;
    rms_norm_cpu({x.row(s.last()), residual.row(s.last()), weight.data(), y.data(), total.data(),
                  &one, 1, n, 1e-5f, kType, Float::kFloat32});
    expect_row(output.values(s.last()), widened_all(y), s);
    expect_row(sum.values(s.last()), widened_all(total), s);
    expect_row(rstd.values(s.last()), {one}, s, Float::kFloat32);
  }
}

TEST(FarRows, OfRmsNormBackward) {
  for (const Shape& s : shapes()) {
    const int64_t n = s.columns;
    Far grad(s, n, 1), grad_sum(s, n, 2), x(s, n, 3), grad_x(s);
    Far<float> rstd(s, 1), partials(s, n);
    const std::vector<float> weight = random_floats(n, 4, 1);
    std::vector<float> grad_weight(static_cast<size_t>(n));
    const float one = rstd.data()[s.last()] = 1.5f;
    const int64_t chunks = n > 1 ? s.rows : int64_t{1} << 30, chunk = s.last() % chunks;
    {
      const FarDevice device(s.processors, chunk, 1);
      EXPECT_EQ(
          rms_norm_backward_cuda(
              {grad.data(), grad_sum.data(), x.data(), weight.data(), rstd.data(), grad_x.data(),
               partials.data(), grad_weight.data(), s.rows, n, chunks, kType, Float::kFloat32},
              nullptr),
          cudaSuccess);
    }
    auto dx = one_row(n);
    std::vector<float> expected(static_cast<size_t>(n));
    rms_norm_backward_cpu({grad.row(s.last()), grad_sum.row(s.last()), x.row(s.last()),
                           weight.data(), &one, dx.data(), nullptr, expected.data(), 1, n, 0, kType,
                           Float::kFloat32});
    expect_row(grad_x.values(s.last()), widened_all(dx), s);
    expect_row(partials.values(chunk), expected, s, Float::kFloat32);
  }
}

TEST(FarRows, OfSumsOverChunks) {
  const Shape s{2, (int64_t{1} << 31) + 3, false, 1 << 24};
  Far<float> rows(s);
  FarMemory sums(s.columns * 4);
  rows.row(0)[s.columns - 1] = 2;
  rows.row(1)[s.columns - 1] = 3;
  run_the_last(s, s.columns - 1, s.columns, 32, kThreads, [&] {
    return column_sum(rows.data(), s.rows, s.columns, sums.as<float>(), nullptr);
  });
  EXPECT_EQ(sums.as<float>()[s.columns - 1], 5);
}

TEST(FarRows, OfGelu) {
  for (const Shape& s : shapes())
    for (bool has_bias : {false, true}) {
      const int64_t n = s.columns;
      Far x(s, n, 1), output(s);
      const std::vector<float> values = random_floats(n, 2);
      const float* const bias = has_bias ? values.data() : nullptr;
      run_the_last(s, s.last() * s.packs(), s.rows * s.packs(), kThreads, kThreads, [&] {
        return gelu_cuda({x.data(), bias, output.data(), s.rows, n, kType, Float::kFloat32},
                         nullptr);
      });
      auto y = one_row(n);
      gelu_cpu({x.row(s.last()), bias, y.data(), 1, n, kType, Float::kFloat32});
      expect_row(output.values(s.last()), widened_all(y), s);
    }
}

TEST(FarRows, OfGeluBackward) {
  for (const Shape& s : shapes())
    for (bool has_bias : {false, true}) {
      const int64_t n = s.columns, tiles = (s.packs() + 31) / 32;
      Far grad(s, n, 1), x(s, n, 2), grad_x(s);
      Far<float> partials(s);
      const std::vector<float> values = random_floats(n, 3);
      const float* const bias = has_bias ? values.data() : nullptr;
      std::vector<float> grad_bias(static_cast<size_t>(n)), expected(grad_bias);
      const auto launch = [&] {
        return gelu_backward_cuda({grad.data(), x.data(), bias, grad_x.data(), partials.data(),
                                   grad_bias.data(), s.rows, s.rows, n, kType, Float::kFloat32},
                                  nullptr);
      };
      if (has_bias)  // a block a tile of a row
        run_the_last(s, s.last() * tiles, s.rows * tiles, 1, kThreads, launch);
      else
        run_the_last(s, s.last() * s.packs(), s.rows * s.packs(), kThreads, kThreads, launch);
      auto dx = one_row(n);
      gelu_backward_cpu({grad.row(s.last()), x.row(s.last()), bias, dx.data(), nullptr,
                         expected.data(), 0, 1, n, kType, Float::kFloat32});
      expect_row(grad_x.values(s.last()), widened_all(dx), s);
      if (has_bias) expect_row(partials.values(s.last()), expected, s, Float::kFloat32);
    }
}

TEST(FarRows, OfSwiGlu) {
  for (const Shape& s : shapes()) {
    const int64_t n = s.columns, begin = s.last() * s.packs(), end = s.rows * s.packs();
    Far gate_up(s, 2 * n, 1), grad(s, n, 2), output(s), grad_gate_up(s, 2 * n);
    run_the_last(s, begin, end, kThreads, kThreads, [&] {
      return swiglu_cuda({gate_up.data(), output.data(), s.rows, n, kType}, nullptr);
    });
    run_the_last(s, begin, end, kThreads, kThreads, [&] {
      return swiglu_backward_cuda(
          {grad.data(), gate_up.data(), grad_gate_up.data(), s.rows, n, kType}, nullptr);
    });
    auto y = one_row(n), d = one_row(2 * n);
    swiglu_cpu({gate_up.row(s.last()), y.data(), 1, n, kType});
    swiglu_backward_cpu({grad.row(s.last()), gate_up.row(s.last()), d.data(), 1, n, kType});
    expect_row(output.values(s.last()), widened_all(y), s);
    expect_row(grad_gate_up.values(s.last()), widened_all(d), s);
  }
}

TEST(FarRows, OfRope) {
  for (Shape s : shapes()) {
    s.columns = std::max<int64_t>(s.columns, 8);
    const int64_t dim = s.columns / 4, packs = 4 * (dim / 2) / s.width();
    Far qkv(s, s.columns, 1), output(s);
    // a table of every position: the last one's angles
    Shape table = s;
    table.wide = true;
    Far<float> cos_sin(table, dim, 2);
    run_the_last(s, s.last() * packs, s.rows * packs, kThreads, kThreads, [&] {
      return rope_cuda(
          {qkv.data(), output.data(), cos_sin.data(), s.rows, s.rows, 3, 1, dim, false, kType},
          nullptr);
    });
    auto y = one_row(s.columns);
    rope_cpu({qkv.row(s.last()), y.data(), cos_sin.row(s.last()), 1, 1, 3, 1, dim, false, kType});
    expect_row(output.values(s.last()), widened_all(y), s);
  }
}

TEST(FarRows, OfImageNormalize) {
  for (const Shape& s : shapes()) {
    Far output(s);
    const FarMemory input(s.rows * s.columns);
    uint8_t* const last = input.as<uint8_t>() + s.last() * s.columns;
    for (int64_t i = 0; i < s.columns; ++i) last[i] = static_cast<uint8_t>(3 * i + 1);
    const int channels = s.columns > 1 ? 4 : 1;
    const int64_t pixels = s.columns / channels;
    const float scale[4] = {0.5f, 0.25f, 2, 3}, shift[4] = {1, 2, 3, 4};
    run_the_last(s, s.last() * s.packs(), s.rows * s.packs(), kThreads, kThreads, [&] {
      return image_normalize_cuda(
          {input.as<uint8_t>(), output.data(), scale, shift, s.rows * pixels, channels, kType},
          nullptr);
    });
    auto y = one_row(s.columns);
    image_normalize_cpu({last, y.data(), scale, shift, pixels, channels, kType});
    expect_row(output.values(s.last()), widened_all(y), s);
  }
}

TEST(FarRows, OfEmbedding) {
  for (const Shape& s : shapes()) {
    const int64_t n = s.columns;
    Far weight(s, n, 1), positions(s, n, 2), output(s);
    Far<int64_t> ids(s, 1);
    ids.data()[s.last()] = s.last();
    run_the_last(s, s.last() * s.packs(), s.rows * s.packs(), kThreads, kThreads, [&] {
      return embedding_cuda({weight.data(), positions.data(), ids.data(), output.data(), s.rows, n,
                             s.rows, s.rows, kType},
                            nullptr);
    });
    auto y = one_row(n);
    const int64_t id = 0;
    embedding_cpu({weight.row(s.last()), positions.row(s.last()), &id, y.data(), 1, n, 1, 1, kType},
                  0, 1);
    expect_row(output.values(s.last()), widened_all(y), s);
  }
}

TEST(FarRows, OfEmbeddingGradient) {
  for (const Shape& s : shapes()) {
    const int64_t n = s.columns, begin = s.last() * s.packs(), end = s.rows * s.packs();
    {  // by id: the last of the sorted ids is the last token's
      Far gradient(s, n, 1), result(s);
      Far<int64_t> sorted_ids(s, 1), order(s, 1);
      sorted_ids.data()[s.last()] = order.data()[s.last()] = s.last();
      run_the_last(s, begin, end, kThreads, kThreads, [&] {
        return embedding_gradient_cuda({gradient.data(), sorted_ids.data(), order.data(),
                                        result.data(), s.rows, n, s.rows, 1, kType},
                                       nullptr);
      });
      expect_row(result.values(s.last()), gradient.values(s.last()), s);
    }
    {  // by position: the second sequence's rows are the same numbers
      Far gradient({2 * s.rows, n, s.wide, 1}, n, 1), result(s);
      run_the_last(s, begin, end, kThreads, kThreads, [&] {
        return embedding_gradient_cuda({gradient.data(), nullptr, nullptr, result.data(),
                                        2 * s.rows, n, s.rows, s.rows, kType},
                                       nullptr);
      });
      expect_row(result.values(s.last()), gradient.values(2 * s.rows - 1), s);
    }
  }
}

TEST(FarRows, OfCrossEntropy) {
  std::vector<Shape> all = shapes();                             // a warp a row
  all.push_back({(int64_t{1} << 21) + 3, 2048, true, 1 << 20});  // a block a row
  for (const Shape& s : all) {
    const int64_t n = s.columns, target = n / 2;
    Far logits(s, n, 1);
    Far<int64_t> targets(s, 1);
    Far<float> losses(s, 1);
    targets.data()[s.last()] = target;
    auto y = one_row(n);
    std::copy_n(logits.row(s.last()), n, y.begin());
    float loss = 0;
    const CrossEntropy args{logits.data(), targets.data(), losses.data(), s.rows, n,    n,
                            0.5f,          0.1f,           1e-3f,         true,   kType};
    run_the_last(
        s, s.last(), s.rows, n > 1024 ? 1 : 8, n > 1024 ? 512 : 256,
        [&] { return cross_entropy_cuda(args, nullptr); }, n > 1024 ? 1 : 4);
    cross_entropy_cpu({y.data(), &target, &loss, 1, n, n, 0.5f, 0.1f, 1e-3f, true, kType});
    expect_row(logits.values(s.last()), widened_all(y), s);
    expect_row(losses.values(s.last()), {loss}, s, Float::kFloat32);
  }
}

TEST(FarRows, OfAdamW) {
  for (bool wide : {true, false}) {
    // rows of a chunk each: 2^32 elements and three chunks
    const Shape s{(int64_t{1} << 32) / kAdamWChunk + 3, kAdamWChunk, wide, 1 << 20};
    const int64_t n = kAdamWChunk;
    Far gradient(s, n, 1), copy(s);
    Far<float> parameter(s, n, 2), exp_avg(s, n, 3), exp_avg_sq(s), average(s, n, 4);
    Far<double> partials(s, 1);
    double norm = 0;
    AdamWTensor tensor{parameter.data(),
                       gradient.data(),
                       exp_avg.data(),
                       exp_avg_sq.data(),
                       copy.data(),
                       average.data(),
                       s.rows * n,
                       0,
                       0.99f,
                       1e-3f,
                       kType,
                       kType,
                       wide};
    AdamW args{};
    args.tensors = &tensor;
    args.tensor_count = 1;
    args.chunks = s.rows;
    args.partials = partials.data();
    args.norm = &norm;
    args.one_minus_beta1 = 0.1f, args.beta2 = 0.95f, args.one_minus_beta2 = 0.05f;
    args.root = 1, args.eps = 1e-8f, args.one_minus_ema = 0.01f;
    args.divide = 2, args.max_norm = 1, args.known = 3;

    // the last chunk alone, copied before it moves
    std::vector<float> p(parameter.row(s.last()), parameter.row(s.rows));
    std::vector<float> m(exp_avg.row(s.last()), exp_avg.row(s.rows)), v(p.size());
    std::vector<float> a(average.row(s.last()), average.row(s.rows));
    auto c = one_row(n);
    AdamWTensor one = tensor;
    one.parameter = p.data(), one.gradient = gradient.row(s.last()), one.exp_avg = m.data();
    one.exp_avg_sq = v.data(), one.copy = c.data(), one.average = a.data(), one.count = n;
    AdamW of_one = args;
    double sum = 0;
    of_one.tensors = &one, of_one.chunks = 1, of_one.partials = &sum;
    adamw_squares_cpu(of_one, 0, 1);
    adamw_update_cpu(of_one, adamw_factor(of_one, args.known), 0, 1);

    run_the_last(s, s.last(), s.rows, 1, kThreads, [&] { return global_norm_cuda(args, nullptr); });
    EXPECT_NEAR(partials.data()[s.last()], sum, 1e-9 * sum);
    args.has_norm = true;
    run_the_last(s, s.last(), s.rows, 1, kThreads, [&] { return adamw_cuda(args, nullptr); });
    EXPECT_EQ(parameter.values(s.last()), p);
    EXPECT_EQ(exp_avg.values(s.last()), m);
    EXPECT_EQ(exp_avg_sq.values(s.last()), v);
    EXPECT_EQ(average.values(s.last()), a);
    EXPECT_EQ(copy.values(s.last()), widened_all(c));
  }
}

}  // namespace
}  // namespace lehr::kernels
