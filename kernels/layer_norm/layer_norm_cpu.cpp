// The oracle: the contract as plain loops, the sums in double.
#include <cmath>

#include "kernels/common/rounding.h"
#include "kernels/layer_norm/layer_norm.h"

namespace lehr::kernels {
namespace {

template <class T, class P>
void forward(const LayerNorm& args) {
  const int64_t n = args.columns;
  const P *weight = static_cast<const P*>(args.weight), *bias = static_cast<const P*>(args.bias);
  for (int64_t row = 0; row < args.rows; ++row) {
    const T* x = static_cast<const T*>(args.x) + row * n;
    T* output = static_cast<T*>(args.output) + row * n;
    if (args.residual) {
      const T* residual = static_cast<const T*>(args.residual) + row * n;
      T* sum = static_cast<T*>(args.sum) + row * n;
      for (int64_t c = 0; c < n; ++c) sum[c] = rounded<T>(widened(x[c]) + widened(residual[c]));
      x = sum;
    }
    double mean = 0, variance = 0;
    for (int64_t c = 0; c < n; ++c) mean += static_cast<double>(widened(x[c])) / n;
    for (int64_t c = 0; c < n; ++c) variance += std::pow(widened(x[c]) - mean, 2) / n;
    const double rstd = 1 / std::sqrt(variance + args.eps);
    args.stats[row] = static_cast<float>(mean);
    args.stats[args.rows + row] = static_cast<float>(rstd);
    for (int64_t c = 0; c < n; ++c) {
      const double normal = (widened(x[c]) - mean) * rstd;
      output[c] = rounded<T>(static_cast<float>(normal * widened(weight[c]) + widened(bias[c])));
    }
  }
}

template <class T, class P>
void backward(const LayerNormBackward& args) {
  const int64_t n = args.columns;
  const P* weight = static_cast<const P*>(args.weight);
  float *grad_weight = args.grad_parameters, *grad_bias = args.grad_parameters + n;
  for (int64_t row = 0; row < args.rows; ++row) {
    const T* grad = static_cast<const T*>(args.grad) + row * n;
    const T* x = static_cast<const T*>(args.x) + row * n;
    T* grad_x = static_cast<T*>(args.grad_x) + row * n;
    const double mean = args.stats[row], rstd = args.stats[args.rows + row];
    double a = 0, b = 0;
    for (int64_t c = 0; c < n; ++c) {
      const double gw = static_cast<double>(widened(grad[c])) * widened(weight[c]);
      a += gw / n;
      b += gw * (widened(x[c]) - mean) * rstd / n;
    }
    for (int64_t c = 0; c < n; ++c) {
      const double gw = static_cast<double>(widened(grad[c])) * widened(weight[c]);
      double dx = rstd * (gw - a - (widened(x[c]) - mean) * rstd * b);
      if (args.grad_sum) dx += widened(static_cast<const T*>(args.grad_sum)[row * n + c]);
      grad_x[c] = rounded<T>(static_cast<float>(dx));
    }
  }
  for (int64_t c = 0; c < n; ++c) {
    double of_weight = 0, of_bias = 0;
    for (int64_t row = 0; row < args.rows; ++row) {
      const double g = widened(static_cast<const T*>(args.grad)[row * n + c]);
      const double x = widened(static_cast<const T*>(args.x)[row * n + c]);
      of_weight += g * (x - args.stats[row]) * args.stats[args.rows + row];
      of_bias += g;
    }
    grad_weight[c] = static_cast<float>(of_weight);
    grad_bias[c] = static_cast<float>(of_bias);
  }
}

}  // namespace

void layer_norm_cpu(const LayerNorm& args) {
  const bool wide = args.parameter_type == Float::kFloat32;
  switch (args.type) {
    case Float::kFloat32:
      return forward<float, float>(args);
    case Float::kBFloat16:
      return wide ? forward<BFloat16, float>(args) : forward<BFloat16, BFloat16>(args);
    case Float::kFloat16:
      return wide ? forward<Float16, float>(args) : forward<Float16, Float16>(args);
  }
}

void layer_norm_backward_cpu(const LayerNormBackward& args) {
  const bool wide = args.parameter_type == Float::kFloat32;
  switch (args.type) {
    case Float::kFloat32:
      return backward<float, float>(args);
    case Float::kBFloat16:
      return wide ? backward<BFloat16, float>(args) : backward<BFloat16, BFloat16>(args);
    case Float::kFloat16:
      return wide ? backward<Float16, float>(args) : backward<Float16, Float16>(args);
  }
}

}  // namespace lehr::kernels
