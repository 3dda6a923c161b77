// The oracle: the contract as plain loops, the sums in double.
#include <cmath>

#include "kernels/common/rounding.h"
#include "kernels/rms_norm/rms_norm.h"

namespace lehr::kernels {
namespace {

template <class T, class P>
void forward(const RmsNorm& args) {
  const int64_t n = args.columns;
  const P* weight = static_cast<const P*>(args.weight);
  for (int64_t row = 0; row < args.rows; ++row) {
    const T* x = static_cast<const T*>(args.x) + row * n;
    T* output = static_cast<T*>(args.output) + row * n;
    if (args.residual) {
      const T* residual = static_cast<const T*>(args.residual) + row * n;
      T* sum = static_cast<T*>(args.sum) + row * n;
      for (int64_t c = 0; c < n; ++c) sum[c] = rounded<T>(widened(x[c]) + widened(residual[c]));
      x = sum;
    }
    double square = 0;
    for (int64_t c = 0; c < n; ++c) square += std::pow(static_cast<double>(widened(x[c])), 2) / n;
    const double rstd = 1 / std::sqrt(square + args.eps);
    args.rstd[row] = static_cast<float>(rstd);
    for (int64_t c = 0; c < n; ++c)
      output[c] = rounded<T>(static_cast<float>(widened(x[c]) * rstd * widened(weight[c])));
  }
}

template <class T, class P>
void backward(const RmsNormBackward& args) {
  const int64_t n = args.columns;
  const P* weight = static_cast<const P*>(args.weight);
  for (int64_t row = 0; row < args.rows; ++row) {
    const T* grad = static_cast<const T*>(args.grad) + row * n;
    const T* x = static_cast<const T*>(args.x) + row * n;
    T* grad_x = static_cast<T*>(args.grad_x) + row * n;
    const double rstd = args.rstd[row];
    double b = 0;
    for (int64_t c = 0; c < n; ++c) {
      const double gw = static_cast<double>(widened(grad[c])) * widened(weight[c]);
      b += gw * widened(x[c]) * rstd / n;
    }
    for (int64_t c = 0; c < n; ++c) {
      const double gw = static_cast<double>(widened(grad[c])) * widened(weight[c]);
      double dx = rstd * (gw - widened(x[c]) * rstd * b);
      if (args.grad_sum) dx += widened(static_cast<const T*>(args.grad_sum)[row * n + c]);
      grad_x[c] = rounded<T>(static_cast<float>(dx));
    }
  }
  for (int64_t c = 0; c < n; ++c) {
    double sum = 0;
    for (int64_t row = 0; row < args.rows; ++row) {
      const double g = widened(static_cast<const T*>(args.grad)[row * n + c]);
      const double x = widened(static_cast<const T*>(args.x)[row * n + c]);
      sum += g * x * args.rstd[row];
    }
    args.grad_weight[c] = static_cast<float>(sum);
  }
}

}  // namespace

void rms_norm_cpu(const RmsNorm& args) {
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

void rms_norm_backward_cpu(const RmsNormBackward& args) {
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
