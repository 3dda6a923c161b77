// The oracle: the contract as plain loops, in double.
#include <cmath>

#include "kernels/common/rounding.h"
#include "kernels/gelu/gelu.h"

namespace lehr::kernels {
namespace {

constexpr double kSlope = 0.79788456080286535588, kCubic = 0.044715;  // sqrt(2 / pi)

double gelu(double v) { return 0.5 * v * (1 + std::tanh(kSlope * (v + kCubic * v * v * v))); }

double derivative(double v) {
  const double t = std::tanh(kSlope * (v + kCubic * v * v * v));
  return 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * kSlope * (1 + 3 * kCubic * v * v);
}

template <class T, class P>
double value(const void* x, const void* bias, int64_t i, int64_t columns) {
  const float v = widened(static_cast<const T*>(x)[i]);
  return bias ? v + widened(static_cast<const P*>(bias)[i % columns]) : v;
}

template <class T, class P>
void forward(const Gelu& args) {
  for (int64_t i = 0; i < args.rows * args.columns; ++i) {
    const double v = value<T, P>(args.x, args.bias, i, args.columns);
    static_cast<T*>(args.output)[i] = rounded<T>(static_cast<float>(gelu(v)));
  }
}

template <class T, class P>
void backward(const GeluBackward& args) {
  for (int64_t c = 0; c < args.columns; ++c) {
    double sum = 0;
    for (int64_t row = 0; row < args.rows; ++row) {
      const int64_t i = row * args.columns + c;
      const double v = value<T, P>(args.x, args.bias, i, args.columns);
      const double d = widened(static_cast<const T*>(args.grad)[i]) * derivative(v);
      static_cast<T*>(args.grad_x)[i] = rounded<T>(static_cast<float>(d));
      sum += d;
    }
    if (args.bias) args.grad_bias[c] = static_cast<float>(sum);
  }
}

}  // namespace

void gelu_cpu(const Gelu& args) {
  const bool wide = args.bias_type == Float::kFloat32;
  switch (args.type) {
    case Float::kFloat32:
      return forward<float, float>(args);
    case Float::kBFloat16:
      return wide ? forward<BFloat16, float>(args) : forward<BFloat16, BFloat16>(args);
    case Float::kFloat16:
      return wide ? forward<Float16, float>(args) : forward<Float16, Float16>(args);
  }
}

void gelu_backward_cpu(const GeluBackward& args) {
  const bool wide = args.bias_type == Float::kFloat32;
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
