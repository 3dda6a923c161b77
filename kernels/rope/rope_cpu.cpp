// The oracle: the contract as plain loops, in double.
#include "kernels/common/rounding.h"
#include "kernels/rope/rope.h"

namespace lehr::kernels {
namespace {

template <class T>
void turn(const Rope& args) {
  const int64_t half = args.head_dim / 2, columns = (args.heads + args.kept_heads) * args.head_dim;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* cos = args.cos_sin + row % args.positions * args.head_dim;
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t head = c / args.head_dim, i = c % args.head_dim;
      if (i >= half) continue;
      const T* in = static_cast<const T*>(args.qkv) + row * columns + c;
      T* out = static_cast<T*>(args.output) + row * columns + c;
      const T first = in[0], second = in[half];
      out[0] = first;
      out[half] = second;
      if (head >= args.heads) continue;
      const double x1 = widened(first), x2 = widened(second);
      const double co = cos[i], si = args.inverse ? -cos[half + i] : cos[half + i];
      out[0] = rounded<T>(static_cast<float>(x1 * co - x2 * si));
      out[half] = rounded<T>(static_cast<float>(x2 * co + x1 * si));
    }
  }
}

}  // namespace

void rope_cpu(const Rope& args) {
  switch (args.type) {
    case Float::kFloat32:
      return turn<float>(args);
    case Float::kBFloat16:
      return turn<BFloat16>(args);
    case Float::kFloat16:
      return turn<Float16>(args);
  }
}

}  // namespace lehr::kernels
