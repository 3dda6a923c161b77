// embedding.cu itself, compiled for the host, and the vector path against the oracle: same bits
// under every thread order, in the asan and the race build.
#include <algorithm>
#include <numeric>

#include "kernels/embedding/embedding.h"
#include "tests/cuda_host/host_test.h"
#include "tests/kernels/embedding_cases.h"
#include "tests/kernels/floats.h"
#include "tests/kernels/simd_levels.h"

namespace lehr::kernels {
namespace {

using cuda_host::Buffer;
using Bytes = std::vector<uint8_t>;

template <class Call>
Bytes look_up(const EmbeddingShape& shape, const std::vector<int64_t>& ids, Float type,
              bool positions, size_t skew, Call call) {
  const size_t bytes = static_cast<size_t>(bytes_of(type));
  Buffer<uint8_t> weight(packed(embedding_values(shape.vocabulary * shape.width, 1), type),
                         skew * bytes),
      position(packed(embedding_values(shape.length * shape.width, 2), type), skew * bytes),
      output(shape.tokens() * shape.width * bytes, skew * bytes);
  Buffer<int64_t> in(ids);
  call(Embedding{weight.data(), positions ? position.data() : nullptr, in.data(), output.data(),
                 shape.tokens(), shape.width, shape.vocabulary, shape.length, type});
  return output.values();
}

// `sorted`: by id, else by position
template <class Call>
Bytes add_up(const EmbeddingShape& shape, const std::vector<int64_t>& ids, Float type, bool sorted,
             size_t skew, Call call) {
  const size_t bytes = static_cast<size_t>(bytes_of(type));
  std::vector<int64_t> order(ids.size()), sorted_ids;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return ids[a] < ids[b]; });
  for (int64_t i : order) sorted_ids.push_back(ids[i]);
  const int64_t rows = sorted ? shape.vocabulary : shape.length;
  Buffer<uint8_t> gradient(packed(embedding_values(shape.tokens() * shape.width, 3), type),
                           skew * bytes),
      result(rows * shape.width * bytes, skew * bytes);
  Buffer<int64_t> first(sorted_ids), second(order);
  EmbeddingGradient args{gradient.data(), nullptr, nullptr,      result.data(), shape.tokens(),
                         shape.width,     rows,    shape.length, type};
  if (sorted) {
    args.sorted_ids = first.data();
    args.order = second.data();
  }
  call(args);
  return result.values();
}

TEST(EmbeddingHost, GivesTheOraclesBits) {
  for (const EmbeddingShape& shape : embedding_shapes())
    for (Float type : all_float_types())
      for (bool positions : {false, true})
        for (size_t skew : {0, 1}) {
          const auto ids = embedding_ids(shape);
          const auto expected = look_up(shape, ids, type, positions, skew,
                                        [](const Embedding& a) { embedding_cpu(a, 0, a.tokens); });
          const auto output = cuda_host::run_under_every_schedule([&] {
            return look_up(shape, ids, type, positions, skew, [](const Embedding& a) {
              EXPECT_EQ(embedding_cuda(a, nullptr), cudaSuccess);
            });
          });
          EXPECT_EQ(output, expected) << shape.name();
          with_every_simd_level([&](const std::string& level) {
            EXPECT_EQ(look_up(shape, ids, type, positions, skew,
                              [](const Embedding& a) { embedding_cpu_simd(a, 0, a.tokens); }),
                      expected)
                << shape.name() << level;
          });
        }
}

TEST(EmbeddingHost, GivesTheOraclesBitsForGradients) {
  for (const EmbeddingShape& shape : embedding_shapes())
    for (Float type : all_float_types())
      for (bool sorted : {false, true})
        for (bool same : {false, true})
          for (size_t skew : {0, 1}) {
            if (same && skew) continue;
            const auto ids = embedding_ids(shape, same);
            const auto expected =
                add_up(shape, ids, type, sorted, skew,
                       [](const EmbeddingGradient& a) { embedding_gradient_cpu(a, 0, a.tokens); });
            const auto output = cuda_host::run_under_every_schedule([&] {
              return add_up(shape, ids, type, sorted, skew, [](const EmbeddingGradient& a) {
                EXPECT_EQ(embedding_gradient_cuda(a, nullptr), cudaSuccess);
              });
            });
            EXPECT_EQ(output, expected) << shape.name();
            // in parts, which end inside a run
            with_every_simd_level([&](const std::string& level) {
              EXPECT_EQ(add_up(shape, ids, type, sorted, skew,
                               [](const EmbeddingGradient& a) {
                                 for (int64_t begin = 0; begin < a.tokens; begin += 3)
                                   embedding_gradient_cpu_simd(a, begin,
                                                               std::min(a.tokens, begin + 3));
                               }),
                        expected)
                  << shape.name() << level;
            });
          }
}

TEST(EmbeddingHost, AnswersAnIdOutsideTheVocabularyByNotANumber) {
  const EmbeddingShape shape{1, 4, 3, 16};
  const std::vector<int64_t> ids = {-1, 2, 3, INT64_MIN};
  const auto value = [](const Bytes& bytes, size_t i) {
    float result;
    std::memcpy(&result, &bytes[4 * i], 4);
    return result;
  };
  const auto check = [&](const Bytes& output) {
    for (size_t row : {0, 2, 3})
      EXPECT_TRUE(std::isnan(value(output, 16 * row)) && std::isnan(value(output, 16 * row + 15)));
    EXPECT_EQ(value(output, 16), embedding_values(3 * 16, 1)[32]);
  };
  check(look_up(shape, ids, Float::kFloat32, false, 0,
                [](const Embedding& a) { embedding_cpu_simd(a, 0, a.tokens); }));
  check(look_up(shape, ids, Float::kFloat32, false, 0,
                [](const Embedding& a) { EXPECT_EQ(embedding_cuda(a, nullptr), cudaSuccess); }));
  // and its gradient goes nowhere: what is written is row 2 alone
  const auto row_two = [&](const Bytes& result) {
    EXPECT_EQ(value(result, 32), embedding_values(4 * 16, 3)[16]);
    EXPECT_TRUE(std::isnan(value(result, 0)) && std::isnan(value(result, 31)));  // never written
  };
  row_two(add_up(shape, ids, Float::kFloat32, true, 0,
                 [](const EmbeddingGradient& a) { embedding_gradient_cpu(a, 0, a.tokens); }));
  row_two(add_up(shape, ids, Float::kFloat32, true, 0,
                 [](const EmbeddingGradient& a) { embedding_gradient_cpu_simd(a, 0, a.tokens); }));
  row_two(add_up(shape, ids, Float::kFloat32, true, 0, [](const EmbeddingGradient& a) {
    EXPECT_EQ(embedding_gradient_cuda(a, nullptr), cudaSuccess);
  }));
}

}  // namespace
}  // namespace lehr::kernels
