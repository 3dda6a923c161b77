// The oracle: the contract as plain loops, sums in double.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/rounding.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace lehr::kernels {
namespace {

template <class T>
void fill_row(T* row, int64_t begin, int64_t end, float value) {
  std::fill(row + begin, row + end, rounded<T>(value));
}

template <class T>
void one_row(const CrossEntropy& args, int64_t r) {
  T* x = static_cast<T*>(args.logits) + r * args.stride;
  const int64_t target = args.targets[r], vocabulary = args.vocabulary;
  if (args.gradient) fill_row(x, vocabulary, args.stride, 0);
  if (target < 0 || target >= vocabulary) {
    const bool ignored = target == kIgnoredTarget;
    const float value = ignored ? 0 : std::numeric_limits<float>::quiet_NaN();
    args.losses[r] = value;
    if (args.gradient) fill_row(x, 0, vocabulary, value);
    return;
  }

  float max = -std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < vocabulary; ++j) max = std::fmax(max, widened(x[j]));
  double sum = 0, total = 0;
  for (int64_t j = 0; j < vocabulary; ++j) {
    sum += std::exp(static_cast<double>(widened(x[j]) - max));
    total += widened(x[j]);
  }
  const double lse = max + std::log(sum), smoothing = args.label_smoothing;
  double loss = (1 - smoothing) * (lse - widened(x[target]));
  if (smoothing > 0) loss += smoothing * (lse - total / static_cast<double>(vocabulary));
  if (args.z_loss != 0) loss += args.z_loss * lse * lse;
  args.losses[r] = static_cast<float>(loss);
  if (!args.gradient) return;

  const double of_softmax = 1 + (args.z_loss != 0 ? 2 * args.z_loss * lse : 0);
  for (int64_t j = 0; j < vocabulary; ++j) {
    const double softmax = std::exp(static_cast<double>(widened(x[j]) - max)) / sum;
    const double wanted =
        (j == target ? 1 - smoothing : 0) + smoothing / static_cast<double>(vocabulary);
    x[j] = rounded<T>(static_cast<float>(args.scale * (softmax * of_softmax - wanted)));
  }
}

template <class T>
void all_rows(const CrossEntropy& args) {
  for (int64_t r = 0; r < args.rows; ++r) one_row<T>(args, r);
}

template <class T>
void add_each(float* sum, const T* part, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += widened(part[i]);
}

}  // namespace

void add_part_cpu(float* sum, const void* part, Float type, int64_t n) {
  switch (type) {
    case Float::kFloat32:
      return add_each(sum, static_cast<const float*>(part), n);
    case Float::kBFloat16:
      return add_each(sum, static_cast<const BFloat16*>(part), n);
    case Float::kFloat16:
      return add_each(sum, static_cast<const Float16*>(part), n);
  }
}

void cross_entropy_cpu(const CrossEntropy& args) {
  switch (args.type) {
    case Float::kFloat32:
      return all_rows<float>(args);
    case Float::kBFloat16:
      return all_rows<BFloat16>(args);
    case Float::kFloat16:
      return all_rows<Float16>(args);
  }
}

}  // namespace lehr::kernels
