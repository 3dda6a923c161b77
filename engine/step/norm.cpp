#include "engine/step/norm.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "kernels/common/parallel.h"

namespace lehr::step {
namespace {

constexpr int64_t kBlock = 1 << 14;  // numbers in one partial sum: 64 KiB, fits the cache of a core

double sum_of_squares(const float* x, int64_t n) {
  // eight sums side by side, so that additions need not wait for each other; squares of floats do
  // not overflow a double
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; ++j) sums[j] += static_cast<double>(x[i + j]) * x[i + j];
  for (; i < n; ++i) sums[0] += static_cast<double>(x[i]) * x[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

bool is_plain(const at::Tensor& t) {
  return t.is_cpu() && t.scalar_type() == at::kFloat && t.is_non_overlapping_and_dense();
}

double sum_of_squares(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  const int64_t n = tensor.numel(), blocks = (n + kBlock - 1) / kBlock;
  if (blocks <= 1) return sum_of_squares(data, n);
  std::vector<double> partial(static_cast<size_t>(blocks));
  kernels::parallel_for(0, blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      partial[static_cast<size_t>(b)] =
          sum_of_squares(data + b * kBlock, std::min(kBlock, n - b * kBlock));
  });
  double sum = 0;
  for (double p : partial) sum += p;
  return sum;
}

}  // namespace

double global_norm(const std::vector<at::Tensor>& tensors) {
  double sum = 0;
  std::vector<at::Tensor> others;
  for (const auto& tensor : tensors) {
    if (is_plain(tensor))
      sum += sum_of_squares(tensor);
    else
      others.push_back(tensor);
  }
  if (!others.empty()) {
    c10::NoGradGuard no_grad;
    at::Tensor norms = at::stack(at::_foreach_norm(others, 2)).to(at::kDouble);
    sum += norms.square().sum().item<double>();
  }
  return std::sqrt(sum);
}

}  // namespace lehr::step
