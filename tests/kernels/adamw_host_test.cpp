// adamw.cu itself, compiled for the host, and the vector path against the oracle: same bits under
// every thread order, in the asan and the race build.
#include <cmath>
#include <limits>
#include <memory>

#include "kernels/adamw/adamw.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/adamw_cases.h"
#include "tests/kernels/floats.h"
#include "tests/kernels/simd_levels.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;

// the memory of a model, exact in size, and its table
class Model {
 public:
  Model(const ModelCase& c, size_t skew, float poison = 0) {
    uint32_t seed = 1;
    int64_t chunks = 0;
    for (int64_t count : c.counts) {
      const auto values = [&](float scale) { return adamw_values(count, seed++, scale); };
      AdamWTensor row{};
      row.parameter = reinterpret_cast<float*>(add(packed(values(1), Float::kFloat32), skew * 4));
      auto gradient = values(0.1f);
      if (poison != 0 && count > 7) gradient[7] = poison;
      row.gradient = add(packed(gradient, c.gradients), skew * bytes_of(c.gradients));
      row.exp_avg = reinterpret_cast<float*>(add(packed(values(0.1f), Float::kFloat32), skew * 4));
      auto squares = values(0.1f);
      for (float& v : squares) v *= v;
      row.exp_avg_sq = reinterpret_cast<float*>(add(packed(squares, Float::kFloat32), skew * 4));
      if (c.copies)
        row.copy =
            add(std::vector<uint8_t>(count * bytes_of(c.copy_type)), skew * bytes_of(c.copy_type));
      if (c.averages)
        row.average = reinterpret_cast<float*>(add(packed(values(1), Float::kFloat32), skew * 4));
      row.count = count;
      row.first_chunk = chunks;
      row.decay = 0.999f;
      row.step_size = 0.01f * static_cast<float>(seed % 3);
      row.gradient_type = c.gradients;
      row.copy_type = c.copy_type;
      row.wide = skew % 4 == 0;
      table_.push_back(row);
      chunks += (count + kAdamWChunk - 1) / kAdamWChunk;
    }
    rows_ = std::make_unique<Buffer<AdamWTensor>>(table_);
    partials_ = std::make_unique<Buffer<double>>(chunks);
    norm_ = std::make_unique<Buffer<double>>(1);
    args_ = {rows_->data(), static_cast<int64_t>(table_.size()),
             chunks,        partials_->data(),
             norm_->data(), 0.1f,
             0.999f,        0.001f,
             0.04f,         1e-8f,
             0.01f,         4.0,
             0.5,           0,
             false};
  }
  AdamW& args() { return args_; }
  double norm() const { return *norm_->data(); }
  // every byte but the partial sums and the norm
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> all;
    for (const auto& buffer : buffers_) {
      const auto values = buffer->values();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

 private:
  uint8_t* add(const std::vector<uint8_t>& values, size_t skew) {
    buffers_.push_back(std::make_unique<Buffer<uint8_t>>(values, skew));
    return buffers_.back()->data();
  }
  std::vector<std::unique_ptr<Buffer<uint8_t>>> buffers_;
  std::vector<AdamWTensor> table_;
  std::unique_ptr<Buffer<AdamWTensor>> rows_;
  std::unique_ptr<Buffer<double>> partials_, norm_;
  AdamW args_;
};

double norm_by_oracle(const ModelCase& c) {
  Model model(c, 0);
  adamw_squares_cpu(model.args(), 0, model.args().chunks);
  return adamw_norm(model.args());
}

std::vector<uint8_t> by_oracle(const ModelCase& c, double norm) {
  Model model(c, 0);
  adamw_update_cpu(model.args(), adamw_factor(model.args(), norm), 0, model.args().chunks);
  return model.bytes();
}

TEST(AdamWHost, GivesTheOraclesBitsFromAKnownNorm) {
  for (const ModelCase& c : adamw_cases()) {
    for (size_t skew : {0, 1, 4}) {
      for (double norm : {0.1, 3.0}) {                               // below and above max_norm
        if (c.counts.size() < 8 && skew + (norm > 1) > 1) continue;  // large: 0.1, or one skewed
        const auto bytes = cuda_host::run_under_every_schedule([&] {
          Model model(c, skew);
          model.args().has_norm = true;
          model.args().known = norm;
          EXPECT_EQ(adamw_cuda(model.args(), nullptr), cudaSuccess);
          return model.bytes();
        });
        EXPECT_EQ(bytes, by_oracle(c, norm)) << c.name() << " skew " << skew << " norm " << norm;
      }
    }
  }
}

TEST(AdamWHost, FindsTheNormItself) {
  for (const ModelCase& c : adamw_cases()) {
    if (c.counts.empty() || c.counts[0] == 0) continue;
    const double expected = norm_by_oracle(c);
    double norms[2];
    const auto bytes = cuda_host::run_under_every_schedule([&] {
      Model model(c, 0);
      EXPECT_EQ(global_norm_cuda(model.args(), nullptr), cudaSuccess);
      norms[0] = model.norm();
      EXPECT_EQ(adamw_cuda(model.args(), nullptr), cudaSuccess);
      norms[1] = model.norm();
      return model.bytes();
    });
    EXPECT_EQ(norms[0], norms[1]) << c.name();
    EXPECT_NEAR(norms[0], expected, kNormTolerance * expected) << c.name();
    EXPECT_EQ(bytes, by_oracle(c, norms[0])) << c.name();
  }
}

TEST(AdamWHost, MovesNothingWhereTheNormIsNotFinite) {
  for (float poison :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const ModelCase& c : adamw_cases()) {
      if (c.counts.empty() || c.counts[0] == 0) continue;
      const auto before = Model(c, 0, poison).bytes();
      const auto after = cuda_host::run_under_every_schedule([&] {
        Model model(c, 0, poison);
        EXPECT_EQ(adamw_cuda(model.args(), nullptr), cudaSuccess);
        EXPECT_FALSE(std::isfinite(model.norm()));
        return model.bytes();
      });
      EXPECT_EQ(before, after) << c.name();
    }
  }
}

TEST(AdamWSimd, GivesTheOraclesBits) {
  for (const ModelCase& c : adamw_cases()) {
    with_every_simd_level([&](const std::string& level) {
      for (size_t skew : {0, 1}) {
        Model model(c, skew);
        const AdamW& args = model.args();
        adamw_squares_cpu_simd(args, 0, args.chunks);
        const double norm = adamw_norm(args), expected = norm_by_oracle(c);
        EXPECT_NEAR(norm, expected, kNormTolerance * expected) << c.name() << level;
        adamw_update_cpu_simd(args, adamw_factor(args, norm), 0, args.chunks);
        EXPECT_EQ(model.bytes(), by_oracle(c, norm)) << c.name() << level;
      }
    });
  }
}

// a table of 2^33 elements, of which nothing is read but the table
TEST(AdamWHost, FindsTheTensorOfAChunkBeyondInt32) {
  std::vector<AdamWTensor> table(3);
  const int64_t count = int64_t{1} << 33, chunks = count / kAdamWChunk;
  for (int64_t i = 0; i < 3; ++i) {
    table[i].count = count;
    table[i].first_chunk = i * (chunks << 20);
  }
  AdamW args{};
  args.tensors = table.data();
  args.tensor_count = 3;
  EXPECT_EQ(adamw_tensor_of(args, 0), 0);
  EXPECT_EQ(adamw_tensor_of(args, (chunks << 20) - 1), 0);
  EXPECT_EQ(adamw_tensor_of(args, chunks << 20), 1);
  EXPECT_EQ(adamw_tensor_of(args, (chunks << 21) + 5), 2);
}

}  // namespace
}  // namespace lehr::kernels
