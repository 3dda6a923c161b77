// Single pictures: JPEG and PNG to uint8 pixels, and the resize that Pillow and torchvision call
// antialiased bilinear (the same bytes as Pillow). Everything here may run in many threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/error.h"

namespace lehr::data {

constexpr int64_t kMostPixels = int64_t{1} << 28;  // a header can claim more than memory holds

struct Picture {
  int height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;  // [height, width, channels]
};

// A part of a picture, in pixels.
struct Box {
  int top = 0, left = 0, height = 0, width = 0;
};

// The picture, or what it was made to be, is not what its file says: what `data.bad_samples` passes
// over. A file that cannot be read at all is a plain Error: elsewhere, or later, it may be there.
class BadPicture : public Error {
 public:
  using Error::Error;
};

// Height and width from the header alone; `channels` is 3 or 1, `pixels` stays empty.
Picture picture_size(const std::string& path, const uint8_t* data, size_t size);

// Decodes to `channels`: 3, RGB, or 1, luma, with the bytes of Pillow's `convert("RGB")` and
// `convert("L")`: samples as stored, whatever gamma or profile stands beside them, transparency and
// EXIF orientation left aside; of 16 bits the high ones, but grey of 16 bits is v / 257, rounded
// (which Pillow clips). `shrink` (1, 2, 4 or 8) lets a JPEG decode at that fraction, which costs a
// fraction of the time; a PNG ignores it. Throws BadPicture{kData} naming file and byte for
// anything cut short, corrupt or of another format.
Picture decode(const std::string& path, const uint8_t* data, size_t size, int channels,
               int shrink = 1);

// Scales `box` of `picture` to [height, width, channels] in `out`: triangle filter, widened by the
// scale when shrinking, in fixed point, so that the result is the same everywhere.
void resize(const Picture& picture, const Box& box, int height, int width, uint8_t* out);

// Largest of 1, 2, 4, 8 by which a JPEG may shrink while it decodes and `box` still has twice the
// pixels of the result in each direction, so that the filter decides what is seen.
int shrink_for(const Box& box, int height, int width);

// What evaluation, an artefact's verbs and training without crops see of a picture file, as in
// torchvision: shorter side to `shorter`, then the centre of height x width. With `shorter` 0 a
// picture has that size already, or is refused.
struct View {
  int height = 0, width = 0, channels = 3, shorter = 0;
};
Picture load_view(const std::string& path, const View& view);

}  // namespace lehr::data
