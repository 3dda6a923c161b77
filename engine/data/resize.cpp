// Antialiased bilinear resampling in two passes of 22-bit fixed point, rows first: the arithmetic
// of Pillow's, so that a model sees here what it would see there. Exact integers, no platform
// differences.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/data/bytes.h"
#include "engine/data/picture.h"

namespace lehr::data {
namespace {

constexpr int kBits = 22;

// for each output position: the first input position, and the weights from there on
struct Taps {
  std::vector<int> first, count;
  std::vector<int32_t> weights;  // `widest` per position
  int widest = 0;
};

Taps taps(int from, int to) {
  const double scale = static_cast<double>(from) / to, stretch = std::max(scale, 1.0);
  Taps t;
  t.widest = static_cast<int>(std::ceil(stretch)) * 2 + 1;
  t.weights.resize(static_cast<size_t>(t.widest) * to);
  std::vector<double> raw(t.widest);
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    const int low = std::max(0, static_cast<int>(center - stretch + 0.5));
    const int high = std::min(from, static_cast<int>(center + stretch + 0.5));
    double total = 0;
    for (int x = low; x < high; ++x) {
      // Pillow multiplies by the reciprocal; a division rounds differently
      const double distance = std::abs((x - center + 0.5) * (1.0 / stretch));
      total += raw[x - low] = distance < 1 ? 1 - distance : 0;
    }
    for (int x = low; x < high; ++x)
      t.weights[static_cast<size_t>(i) * t.widest + x - low] = static_cast<int32_t>(
          0.5 + (total != 0 ? raw[x - low] / total : raw[x - low]) * (1 << kBits));
    t.first.push_back(low);
    t.count.push_back(high - low);
  }
  return t;
}

// out[i, c] = sum of in[first + k, c] * weight, for positions `step` bytes apart
inline uint8_t blend(const uint8_t* in, int64_t step, const int32_t* weights, int count) {
  int32_t sum = 1 << (kBits - 1);
  for (int k = 0; k < count; ++k) sum += in[k * step] * weights[k];
  return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255));
}

}  // namespace

void resize(const Picture& picture, const Box& box, int height, int width, uint8_t* out) {
  const int channels = picture.channels;
  const int64_t in_row = static_cast<int64_t>(picture.width) * channels;
  const uint8_t* in =
      picture.pixels.data() + box.top * in_row + static_cast<int64_t>(box.left) * channels;
  const int64_t out_row = static_cast<int64_t>(width) * channels;

  // each pass is left out where it would change nothing
  std::vector<uint8_t> narrow;
  int64_t row = in_row;
  if (box.width != width) {
    const Taps t = taps(box.width, width);
    narrow.resize(box.height * out_row);
    for (int y = 0; y < box.height; ++y)
      for (int x = 0; x < width; ++x)
        for (int c = 0; c < channels; ++c)
          narrow[y * out_row + static_cast<int64_t>(x) * channels + c] =
              blend(in + y * in_row + static_cast<int64_t>(t.first[x]) * channels + c, channels,
                    &t.weights[static_cast<size_t>(x) * t.widest], t.count[x]);
    in = narrow.data();
    row = out_row;
  }
  if (box.height == height) {
    for (int y = 0; y < height; ++y) std::copy_n(in + y * row, out_row, out + y * out_row);
    return;
  }
  const Taps t = taps(box.height, height);
  for (int y = 0; y < height; ++y)
    for (int64_t x = 0; x < out_row; ++x)
      out[y * out_row + x] = blend(in + t.first[y] * row + x, row,
                                   &t.weights[static_cast<size_t>(y) * t.widest], t.count[y]);
}

int shrink_for(const Box& box, int height, int width) {
  for (int shrink : {8, 4, 2})
    if (box.height / shrink >= 2 * height && box.width / shrink >= 2 * width) return shrink;
  return 1;
}

Picture load_view(const std::string& path, const View& view) {
  const Bytes file = read_bytes(path);
  const Picture stored = picture_size(path, file.begin(), file.size);
  const int channels = view.channels;
  if (view.shorter == 0) {
    if (stored.height == view.height && stored.width == view.width)
      return decode(path, file.begin(), file.size, channels);
    throw Error(
        Code::kData,
        fmt::format("a picture of {} x {}, where the model was trained on arrays of {} x {}",
                    stored.height, stored.width, view.height, view.width),
        path, "Scale it as those were: nothing here knows how.");
  }
  const int64_t shorter = std::min(stored.height, stored.width);
  const int64_t longer = std::max(stored.height, stored.width);
  if (longer * view.shorter / shorter * view.shorter > kMostPixels)
    throw BadPicture(
        Code::kData,
        fmt::format("a picture of {} x {}, too narrow to be scaled to a shorter side of {}",
                    stored.height, stored.width, view.shorter),
        path);
  const int height = static_cast<int>(int64_t{stored.height} * view.shorter / shorter);
  const int width = static_cast<int>(int64_t{stored.width} * view.shorter / shorter);
  const Picture picture = decode(path, file.begin(), file.size, channels,
                                 shrink_for({0, 0, stored.height, stored.width}, height, width));
  Picture scaled{height, width, channels, {}};
  scaled.pixels.resize(int64_t{height} * width * channels);
  resize(picture, {0, 0, picture.height, picture.width}, height, width, scaled.pixels.data());
  if (height == view.height && width == view.width) return scaled;
  // halves round to even, as Python's round() does for torchvision
  const int top = static_cast<int>(std::nearbyint((height - view.height) / 2.0));
  const int left = static_cast<int>(std::nearbyint((width - view.width) / 2.0));
  Picture centre{view.height, view.width, channels, {}};
  const int64_t row = int64_t{view.width} * channels;
  centre.pixels.resize(view.height * row);
  for (int y = 0; y < view.height; ++y)
    std::copy_n(scaled.pixels.data() + ((top + y) * int64_t{width} + left) * channels, row,
                centre.pixels.data() + y * row);
  return centre;
}

}  // namespace lehr::data
