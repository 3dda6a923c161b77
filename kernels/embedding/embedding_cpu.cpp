// The oracle: the contract as plain loops.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/common/rounding.h"
#include "kernels/embedding/embedding.h"

namespace lehr::kernels {
namespace {

template <class T>
void look_up(const Embedding& args, int64_t begin, int64_t end) {
  const T nan = rounded<T>(std::numeric_limits<float>::quiet_NaN());
  for (int64_t i = begin; i < end; ++i) {
    T* output = static_cast<T*>(args.output) + i * args.width;
    const int64_t id = args.ids[i];
    if (id < 0 || id >= args.vocabulary) {
      std::fill_n(output, args.width, nan);
      continue;
    }
    const T* row = static_cast<const T*>(args.weight) + id * args.width;
    if (!args.positions) {
      std::copy_n(row, args.width, output);
      continue;
    }
    const T* position = static_cast<const T*>(args.positions) + i % args.length * args.width;
    for (int64_t j = 0; j < args.width; ++j)
      output[j] = rounded<T>(widened(row[j]) + widened(position[j]));
  }
}

// the i-th in sorted order: which row it belongs to, and which token it is
int64_t row_of(const EmbeddingGradient& args, int64_t i) {
  return args.sorted_ids ? args.sorted_ids[i] : i / (args.tokens / args.length);
}
int64_t token_of(const EmbeddingGradient& args, int64_t i) {
  const int64_t sequences = args.sorted_ids ? 1 : args.tokens / args.length;
  return args.sorted_ids ? args.order[i] : i % sequences * args.length + i / sequences;
}

template <class T>
void add_up(const EmbeddingGradient& args, int64_t begin, int64_t end) {
  std::vector<float> sum(static_cast<size_t>(args.width));
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = row_of(args, i);
    if (row < 0 || row >= args.rows) continue;
    if (i > 0 && row_of(args, i - 1) == row) continue;
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t k = i; k < args.tokens && row_of(args, k) == row; ++k) {
      const T* gradient = static_cast<const T*>(args.gradient) + token_of(args, k) * args.width;
      for (int64_t j = 0; j < args.width; ++j) sum[static_cast<size_t>(j)] += widened(gradient[j]);
    }
    T* result = static_cast<T*>(args.result) + row * args.width;
    for (int64_t j = 0; j < args.width; ++j) result[j] = rounded<T>(sum[static_cast<size_t>(j)]);
  }
}

}  // namespace

void embedding_cpu(const Embedding& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case Float::kFloat32:
      return look_up<float>(args, begin, end);
    case Float::kBFloat16:
      return look_up<BFloat16>(args, begin, end);
    case Float::kFloat16:
      return look_up<Float16>(args, begin, end);
  }
}

void embedding_gradient_cpu(const EmbeddingGradient& args, int64_t begin, int64_t end) {
  if (args.width == 0) return;
  switch (args.type) {
    case Float::kFloat32:
      return add_up<float>(args, begin, end);
    case Float::kBFloat16:
      return add_up<BFloat16>(args, begin, end);
    case Float::kFloat16:
      return add_up<Float16>(args, begin, end);
  }
}

}  // namespace lehr::kernels
