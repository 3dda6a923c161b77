// cross_entropy.cu itself, compiled for the host, against the oracle, and the vector path against
// it too: every shape, type and option, in the asan and the race build.
#include "kernels/common/rounding.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/cross_entropy_cases.h"
#include "tests/kernels/simd_levels.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;

template <class T>
constexpr Float kTypeOf = Float::kFloat32;
template <>
constexpr Float kTypeOf<BFloat16> = Float::kBFloat16;
template <>
constexpr Float kTypeOf<Float16> = Float::kFloat16;

struct Result {
  std::vector<float> losses, logits;
};

// losses and logits as bytes in one vector, for the comparison of schedules
template <class T, class Run>
Result run(const ClassifierShape& shape, const std::vector<T>& logits, CrossEntropy args,
           size_t skew, bool schedules, Run call) {
  const auto targets = cross_entropy_targets(shape);
  std::vector<T> after;
  auto once = [&] {
    Buffer<T> x(logits, skew);
    Buffer<int64_t> t(targets);
    Buffer<float> losses(targets.size());
    args.logits = x.data();
    args.targets = t.data();
    args.losses = losses.data();
    call(args);
    after = x.values();
    std::vector<uint8_t> bytes(targets.size() * 4 + logits.size() * sizeof(T));
    if (bytes.empty()) return bytes;
    std::memcpy(bytes.data(), losses.data(), targets.size() * 4);
    std::memcpy(bytes.data() + targets.size() * 4, x.data(), logits.size() * sizeof(T));
    return bytes;
  };
  const auto bytes = schedules ? cuda_host::run_under_every_schedule(once) : once();
  Result result;
  result.losses.resize(targets.size());
  if (!targets.empty()) std::memcpy(result.losses.data(), bytes.data(), targets.size() * 4);
  for (T value : after) result.logits.push_back(widened(value));
  return result;
}

void expect_near(const Result& result, const Result& expected, Float type,
                 const std::string& where) {
  for (size_t i = 0; i < expected.losses.size(); ++i)
    EXPECT_TRUE(cross_entropy_loss_tolerance().allows(result.losses[i], expected.losses[i]))
        << where << " loss " << i << ": " << result.losses[i] << " not " << expected.losses[i];
  int shown = 0;
  for (size_t i = 0; i < expected.logits.size() && shown < 3; ++i) {
    if (cross_entropy_gradient_tolerance(type).allows(result.logits[i], expected.logits[i]))
      continue;
    ADD_FAILURE() << where << " element " << i << ": " << result.logits[i] << " not "
                  << expected.logits[i];
    ++shown;
  }
}

// NaN is itself; memcmp may not be given the null pointer of an empty one
template <class T>
void expect_agreement(const ClassifierShape& shape, bool hard, float smoothing, float z_loss,
                      bool gradient, size_t skew, bool on_gpu) {
  std::vector<T> logits;
  for (float value : cross_entropy_logits(shape, hard)) logits.push_back(rounded<T>(value));
  CrossEntropy args{};
  args.rows = shape.rows;
  args.vocabulary = shape.vocabulary;
  args.stride = shape.stride;
  args.scale = 0.5f;
  args.label_smoothing = smoothing;
  args.z_loss = z_loss;
  args.gradient = gradient;
  args.type = kTypeOf<T>;
  const std::string where = shape.name() + " type " + std::to_string(static_cast<int>(args.type)) +
                            (hard ? " hard" : "") + " smoothing " + std::to_string(smoothing) +
                            " z " + std::to_string(z_loss) + " skew " + std::to_string(skew);
  const Result expected =
      run<T>(shape, logits, args, skew, false, [](const CrossEntropy& a) { cross_entropy_cpu(a); });
  if (on_gpu)
    expect_near(run<T>(shape, logits, args, skew, true,
                       [](const CrossEntropy& a) {
                         EXPECT_EQ(cross_entropy_cuda(a, nullptr), cudaSuccess);
                       }),
                expected, args.type, "cu " + where);
  with_every_simd_level([&](const std::string& level) {
    expect_near(run<T>(shape, logits, args, skew, false, cross_entropy_cpu_simd), expected,
                args.type, "simd" + level + " " + where);
  });
}

void expect_agreement_of_types(const ClassifierShape& shape, bool hard, float smoothing,
                               float z_loss, bool gradient, size_t skew = 0, bool on_gpu = true) {
  expect_agreement<float>(shape, hard, smoothing, z_loss, gradient, skew * 4, on_gpu);
  expect_agreement<BFloat16>(shape, hard, smoothing, z_loss, gradient, skew * 2, on_gpu);
  expect_agreement<Float16>(shape, hard, smoothing, z_loss, gradient, skew * 2, on_gpu);
}

TEST(CrossEntropyHost, AgreesWithTheOracleForEveryShapeAndType) {
  for (const ClassifierShape& shape : cross_entropy_shapes())
    for (bool hard : {false, true})
      for (bool gradient : {false, true})
        expect_agreement_of_types(shape, hard, hard ? 0 : 0.1f, 0, gradient);
}

TEST(CrossEntropyHost, AgreesWithTheOracleForEveryOption) {
  for (auto [smoothing, z_loss] : cross_entropy_options()) {
    expect_agreement_of_types({7, 65, 72}, false, smoothing, z_loss, true);
    expect_agreement_of_types({3, 1500, 1504}, false, smoothing, z_loss, true);
  }
}

TEST(CrossEntropyHost, AgreesFromSkewedBuffers) {
  for (size_t skew : {1, 2, 4}) {
    expect_agreement_of_types({5, 64, 64}, false, 0.1f, 0, true, skew);
    expect_agreement_of_types({2, 2048, 2048}, false, 0, 0, true, skew);
  }
}

TEST(CrossEntropyHost, ReadsARowThatSharedMemoryCannotHoldTwice) {
  expect_agreement<float>({2, 50257, 50304}, false, 0, 0, true, 0, true);
  expect_agreement<BFloat16>({2, 50257, 50257}, false, 0.1f, 1e-4f, true, 0, true);
}

TEST(CrossEntropyHost, AnswersATargetOutsideTheVocabularyByNotANumber) {
  for (int64_t columns : {65, 2000}) {
    for (int64_t target : {int64_t{-1}, columns, INT64_MAX, INT64_MIN}) {
      std::vector<float> logits(static_cast<size_t>(columns + 7), 1.0f);
      float losses[3] = {0, 0, 0};
      std::vector<float> all[3] = {logits, logits, logits};
      const int64_t targets[1] = {target};
      for (int i = 0; i < 3; ++i) {
        const CrossEntropy args{all[i].data(),  targets, &losses[i], 1, columns,
                                columns + 7,    1,       0,          0, true,
                                Float::kFloat32};
        if (i == 0) cross_entropy_cpu(args);
        if (i == 1) cross_entropy_cpu_simd(args);
        if (i == 2) {
          EXPECT_EQ(cross_entropy_cuda(args, nullptr), cudaSuccess);
        }
        EXPECT_TRUE(std::isnan(losses[i]));
        EXPECT_TRUE(std::isnan(all[i].front()) && std::isnan(all[i][columns - 1]));
        EXPECT_EQ(all[i].back(), 0);
      }
    }
  }
}

template <class T>
void expect_parts_add_up(size_t count) {
  std::vector<float> before(count), expected(count);
  std::vector<T> part(count);
  for (size_t i = 0; i < count; ++i) {
    before[i] = 1.0f / static_cast<float>(i + 3);
    part[i] = rounded<T>(static_cast<float>(i % 17) - 8.3f);
    expected[i] = before[i] + widened(part[i]);
  }
  with_every_simd_level([&](const std::string& level) {
    Buffer<float> sum(before);
    Buffer<T> from(part, sizeof(T));
    add_part_cpu_simd(sum.data(), from.data(), kTypeOf<T>, static_cast<int64_t>(count));
    EXPECT_EQ(sum.values(), expected) << count << level;
  });
}

TEST(CrossEntropyHost, AddsPartsOfEveryTypeAndLength) {
  for (size_t count : {0, 1, 15, 16, 17, 100}) {
    expect_parts_add_up<float>(count);
    expect_parts_add_up<BFloat16>(count);
    expect_parts_add_up<Float16>(count);
  }
}

TEST(CrossEntropyHost, DoesNothingForNoRows) {
  EXPECT_EQ(cross_entropy_cuda({nullptr, nullptr, nullptr, 0, 5, 5, 1, 0, 0, true, Float::kFloat16},
                               nullptr),
            cudaSuccess);
}

}  // namespace
}  // namespace lehr::kernels
