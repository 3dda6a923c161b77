// The oracle: the contract as plain loops. Compiled without contraction to fused multiply-adds.
#include <algorithm>
#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/common/rounding.h"

namespace lehr::kernels {
namespace {

constexpr double kClipEps = 1e-6;  // as in PyTorch's clip_grad_norm_

float gradient_at(const AdamWTensor& tensor, int64_t i) {
  switch (tensor.gradient_type) {
    case Float::kFloat32:
      return static_cast<const float*>(tensor.gradient)[i];
    case Float::kBFloat16:
      return widened(static_cast<const BFloat16*>(tensor.gradient)[i]);
    case Float::kFloat16:
      return widened(static_cast<const Float16*>(tensor.gradient)[i]);
  }
  return 0;
}

void write_copy(const AdamWTensor& tensor, int64_t i, float value) {
  if (tensor.copy_type == Float::kBFloat16)
    static_cast<BFloat16*>(tensor.copy)[i] = rounded<BFloat16>(value);
  else if (tensor.copy_type == Float::kFloat16)
    static_cast<Float16*>(tensor.copy)[i] = rounded<Float16>(value);
  else
    static_cast<float*>(tensor.copy)[i] = value;
}

}  // namespace

int64_t adamw_tensor_of(const AdamW& args, int64_t chunk) {
  // the last one that begins at or before it; a tensor without elements has no chunk
  const AdamWTensor* after =
      std::upper_bound(args.tensors, args.tensors + args.tensor_count, chunk,
                       [](int64_t c, const AdamWTensor& tensor) { return c < tensor.first_chunk; });
  return after - args.tensors - 1;
}

void adamw_squares_cpu(const AdamW& args, int64_t begin, int64_t end) {
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const AdamWTensor& tensor = args.tensors[adamw_tensor_of(args, chunk)];
    const int64_t first = (chunk - tensor.first_chunk) * kAdamWChunk;
    const int64_t last = std::min(tensor.count, first + kAdamWChunk);
    double sum = 0;
    for (int64_t i = first; i < last; ++i) {
      const double g = gradient_at(tensor, i);
      sum += g * g;
    }
    args.partials[chunk] = sum;
  }
}

double adamw_norm(const AdamW& args) {
  double sum = 0;
  for (int64_t chunk = 0; chunk < args.chunks; ++chunk) sum += args.partials[chunk];
  return std::sqrt(sum) / args.divide;
}

float adamw_factor(const AdamW& args, double norm) {
  return static_cast<float>(1 / (args.divide * std::max(1.0, (norm + kClipEps) / args.max_norm)));
}

void adamw_elements_cpu(const AdamW& args, const AdamWTensor& tensor, float factor, int64_t begin,
                        int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient_at(tensor, i) * factor;
    float p = tensor.parameter[i] * tensor.decay;
    const float m = tensor.exp_avg[i] + (g - tensor.exp_avg[i]) * args.one_minus_beta1;
    const float v = tensor.exp_avg_sq[i] * args.beta2 + g * g * args.one_minus_beta2;
    p -= m * tensor.step_size / (std::sqrt(v) / args.root + args.eps);
    tensor.parameter[i] = p;
    tensor.exp_avg[i] = m;
    tensor.exp_avg_sq[i] = v;
    if (tensor.copy) write_copy(tensor, i, p);
    if (tensor.average) tensor.average[i] += (p - tensor.average[i]) * args.one_minus_ema;
  }
}

void adamw_update_cpu(const AdamW& args, float factor, int64_t begin, int64_t end) {
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const AdamWTensor& tensor = args.tensors[adamw_tensor_of(args, chunk)];
    const int64_t first = (chunk - tensor.first_chunk) * kAdamWChunk;
    adamw_elements_cpu(args, tensor, factor, first, std::min(tensor.count, first + kAdamWChunk));
  }
}

}  // namespace lehr::kernels
