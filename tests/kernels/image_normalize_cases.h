// Shapes, constants and types of image_normalize's tests and benchmark; no LibTorch, so that the
// host builds read it too. The tolerance is none: every implementation gives the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/dtype.h"

namespace lehr::kernels {

struct ImageShape {
  int64_t n, h, w, c;
  int64_t elements() const { return n * h * w * c; }
  std::string name() const {
    return std::to_string(n) + "x" + std::to_string(h) + "x" + std::to_string(w) + "x" +
           std::to_string(c);
  }
};

inline std::vector<ImageShape> image_normalize_shapes() {
  return {
      {0, 4, 4, 3},     // empty batch
      {2, 0, 5, 3},     // empty images
      {1, 1, 1, 1},     // less than a pack
      {1, 1, 5, 3},     // 15: tails of 3 (float) and 7 (half)
      {2, 28, 28, 1},   // gray, no tail
      {3, 5, 7, 3},     // odd everything
      {2, 3, 3, 4},     // channels = pack of floats
      {1, 4, 5, 2},     //
      {1, 2, 2, 37},    // prime number of channels, more than a pack
      {1, 1, 3, 2311},  // more channels than one turn of a small grid
      {3, 64, 64, 3},   // every thread of the stand-in's device turns more than once
  };
}

// Colour images' usual constants; and hard ones, whose products overflow half, vanish in it, or
// need every bit of a float.
inline void image_normalize_constants(int64_t channels, bool hard, std::vector<float>* scale,
                                      std::vector<float>* shift) {
  const float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};
  const float hard_scale[] = {317.123f, 1.7e-8f, -3.3e-7f, 0x1.fffffep0f};
  const float hard_shift[] = {-0x1.000002p3f, 5.9e-8f, 1e-30f, 6e4f};
  for (int64_t c = 0; c < channels; ++c) {
    scale->push_back(hard ? hard_scale[c % 4] : 1 / (255 * deviation[c % 3]));
    shift->push_back(hard ? hard_shift[c % 4] : -mean[c % 3] / deviation[c % 3]);
  }
}

// Every byte value, in no order that a bug could hide behind.
inline std::vector<uint8_t> image_normalize_pixels(int64_t elements) {
  std::vector<uint8_t> pixels(elements);
  uint32_t state = 12345;
  for (auto& pixel : pixels) {
    state = state * 1664525u + 1013904223u;
    pixel = static_cast<uint8_t>(state >> 24);
  }
  return pixels;
}

inline std::vector<Float> float_types() {
  return {Float::kFloat32, Float::kBFloat16, Float::kFloat16};
}

}  // namespace lehr::kernels
