// The oracle: the contract as plain loops, in double.
#include <cmath>

#include "kernels/common/rounding.h"
#include "kernels/swiglu/swiglu.h"

namespace lehr::kernels {
namespace {

template <class T>
void forward(const SwiGlu& args) {
  for (int64_t row = 0; row < args.rows; ++row)
    for (int64_t c = 0; c < args.columns; ++c) {
      const T* gate = static_cast<const T*>(args.gate_up) + row * 2 * args.columns + c;
      const double g = widened(gate[0]), up = widened(gate[args.columns]);
      const double value = g / (1 + std::exp(-g)) * up;
      static_cast<T*>(args.output)[row * args.columns + c] = rounded<T>(static_cast<float>(value));
    }
}

template <class T>
void backward(const SwiGluBackward& args) {
  for (int64_t row = 0; row < args.rows; ++row)
    for (int64_t c = 0; c < args.columns; ++c) {
      const int64_t at = row * 2 * args.columns + c;
      const T* gate = static_cast<const T*>(args.gate_up) + at;
      T* grad_gate = static_cast<T*>(args.grad_gate_up) + at;
      const double g = widened(gate[0]), up = widened(gate[args.columns]);
      const double grad = widened(static_cast<const T*>(args.grad)[row * args.columns + c]);
      const double s = 1 / (1 + std::exp(-g));
      grad_gate[0] = rounded<T>(static_cast<float>(grad * up * s * (1 + g * (1 - s))));
      grad_gate[args.columns] = rounded<T>(static_cast<float>(grad * g * s));
    }
}

}  // namespace

void swiglu_cpu(const SwiGlu& args) {
  switch (args.type) {
    case Float::kFloat32:
      return forward<float>(args);
    case Float::kBFloat16:
      return forward<BFloat16>(args);
    case Float::kFloat16:
      return forward<Float16>(args);
  }
}

void swiglu_backward_cpu(const SwiGluBackward& args) {
  switch (args.type) {
    case Float::kFloat32:
      return backward<float>(args);
    case Float::kBFloat16:
      return backward<BFloat16>(args);
    case Float::kFloat16:
      return backward<Float16>(args);
  }
}

}  // namespace lehr::kernels
