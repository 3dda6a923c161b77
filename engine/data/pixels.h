// The loader's hot loop: uint8 pixels to normalised float32, each written once. Multiply, then add,
// each rounded: the bits of ATen's `x * scale + shift`, at memory speed. No LibTorch in here.
#pragma once

#include <cstdint>
#include <vector>

namespace lehr::data {

// What augmentation decided for one image.
struct Window {
  int dy = 0,
      dx = 0;  // pixel (y, x) of the result is (y + dy, x + dx) of the image, 0 outside of it
  bool flip = false;  // left and right, after the shift
  // cut out: rows [top, bottom), columns [left, right) become 0 after normalisation, i.e. the mean
  int top = 0, bottom = 0, left = 0, right = 0;
};

class Normalizer {
 public:
  Normalizer() = default;
  // One scale and shift per channel; images are [height, width, channels].
  Normalizer(int height, int width, int channels, const std::vector<float>& scale,
             const std::vector<float>& shift);
  void whole(const uint8_t* image, float* out) const;
  // `scratch` holds one image of uint8.
  void window(const uint8_t* image, const Window& window, uint8_t* scratch, float* out) const;

 private:
  int height_ = 0, width_ = 0, channels_ = 0;
  std::vector<float> scale_, shift_;  // repeated over one row
};

// Sums over pixels, exact in integers, so that they do not depend on the order of images.
struct Moments {
  uint64_t count = 0, sum = 0, squares = 0;
  int minimum = 255, maximum = 0;
  double mean() const;  // in units of 0..255
  double std() const;
};
// Adds `pixels` pixels of interleaved channels to moments[channel].
void accumulate(const uint8_t* image, int64_t pixels, std::vector<Moments>& moments);

}  // namespace lehr::data
