// The oracle: the contract as plain loops. Compiled without contraction to fused multiply-adds.
#include "kernels/common/rounding.h"
#include "kernels/image_normalize/image_normalize.h"

namespace lehr::kernels {
namespace {

template <class T>
void normalize(const ImageNormalize& args) {
  const uint8_t* input = args.input;
  T* output = static_cast<T*>(args.output);
  for (int64_t pixel = 0; pixel < args.pixels; ++pixel) {
    for (int32_t channel = 0; channel < args.channels; ++channel) {
      const float scaled = static_cast<float>(*input++) * args.scale[channel];
      *output++ = rounded<T>(scaled + args.shift[channel]);
    }
  }
}

}  // namespace

void image_normalize_cpu(const ImageNormalize& args) {
  switch (args.type) {
    case Float::kFloat32:
      return normalize<float>(args);
    case Float::kBFloat16:
      return normalize<BFloat16>(args);
    case Float::kFloat16:
      return normalize<Float16>(args);
  }
}

}  // namespace lehr::kernels
