#include "engine/data/picture.h"

// jpeglib.h expects <cstdio> and <cstddef> before it
#include <fmt/format.h>
#include <jerror.h>
#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "engine/base/error.h"
#include "engine/data/bytes.h"

namespace lehr::data {
namespace {

constexpr int64_t kMostPixels = int64_t{1} << 28;  // a header can claim more than memory holds

void check_extent(const std::string& path, uint64_t width, uint64_t height) {
  if (width == 0 || height == 0 || width * height > kMostPixels)
    throw Error(Code::kData, fmt::format("a picture of {} x {} pixels", width, height), path,
                "Pictures have between 1 and 2^28 pixels.");
}

// --- JPEG. libjpeg leaves by longjmp, so nothing with a destructor lives in the frames it crosses.

struct JpegErrors {
  jpeg_error_mgr base;
  std::jmp_buf leave;
  char message[JMSG_LENGTH_MAX];
};

void jpeg_fail(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->message);
  std::longjmp(errors->leave, 1);
}

void jpeg_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  // stray bytes between segments do no harm; every other warning means that pixels are made up
  const int code = info->err->msg_code;
  if (code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM && code != JWRN_JFIF_MAJOR)
    jpeg_fail(info);
}

struct JpegJob {
  const uint8_t* data;
  size_t size;
  int channels, shrink;
  bool header_only;
  Picture* picture;
  uint64_t byte = 0;
  char message[JMSG_LENGTH_MAX] = "";
};

// the picture's size is known: makes room, in a frame that longjmp does not cross
bool make_room(JpegJob& job, int height, int width) {
  job.picture->height = height;
  job.picture->width = width;
  job.picture->channels = job.channels;
  if (int64_t{height} * width > kMostPixels) return false;
  if (!job.header_only) job.picture->pixels.resize(int64_t{height} * width * job.channels);
  return true;
}

bool run_jpeg(JpegJob& job) {
  jpeg_decompress_struct info;
  JpegErrors errors;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = jpeg_fail;
  errors.base.emit_message = jpeg_message;
  if (setjmp(errors.leave)) {
    std::memcpy(job.message, errors.message, sizeof job.message);
    job.byte = info.src ? job.size - std::min(job.size, info.src->bytes_in_buffer) : 0;
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, job.data, job.size);
  jpeg_read_header(&info, TRUE);
  if (job.header_only) {
    job.channels = info.num_components == 1 ? 1 : 3;
    make_room(job, info.image_height, info.image_width);
    jpeg_destroy_decompress(&info);
    return true;
  }
  info.out_color_space = job.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info.scale_num = 1;
  info.scale_denom = job.shrink;
  jpeg_start_decompress(&info);
  if (!make_room(job, info.output_height, info.output_width)) {
    jpeg_destroy_decompress(&info);
    return true;
  }
  const size_t row = static_cast<size_t>(info.output_width) * job.channels;
  while (info.output_scanline < info.output_height) {
    JSAMPROW line = job.picture->pixels.data() + info.output_scanline * row;
    jpeg_read_scanlines(&info, &line, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

Picture decode_jpeg(const std::string& path, const uint8_t* data, size_t size, int channels,
                    int shrink, bool header_only) {
  Picture picture;
  JpegJob job{data, size, channels, shrink, header_only, &picture};
  if (!run_jpeg(job))
    bad_byte(path, job.byte, fmt::format("the JPEG is corrupt or cut short ({})", job.message));
  check_extent(path, picture.width, picture.height);
  return picture;
}

// --- PNG

uint32_t big_endian(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

// walks the chunks: lengths inside the file, every CRC right, IEND last. libpng names no byte.
void check_png(const std::string& path, const uint8_t* data, size_t size) {
  size_t at = 8;
  for (;;) {
    if (size < at + 12) bad_byte(path, size, "the PNG is cut short");
    const uint32_t length = big_endian(data + at);
    const uint8_t* type = data + at + 4;
    if (length > size - at - 12)
      bad_byte(path, size,
               fmt::format("the PNG is cut short: its chunk at byte {} has {} bytes", at, length));
    if (crc32(0, type, length + 4) != big_endian(type + 4 + length))
      bad_byte(path, at,
               fmt::format("the PNG is corrupt: the checksum of its chunk of {} bytes is wrong",
                           length));
    at += 12 + length;
    if (std::memcmp(type, "IEND", 4) == 0) return;
  }
}

Picture decode_png(const std::string& path, const uint8_t* data, size_t size, int channels,
                   bool header_only) {
  if (!header_only) check_png(path, data, size);
  png_image image;
  std::memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  struct Freer {
    png_image* image;
    ~Freer() { png_image_free(image); }
  } freer{&image};
  if (!png_image_begin_read_from_memory(&image, data, size))
    bad_byte(path, 8, fmt::format("the PNG header is corrupt ({})", image.message));
  const bool colour = image.format & PNG_FORMAT_FLAG_COLOR;
  Picture picture{static_cast<int>(image.height),
                  static_cast<int>(image.width),
                  header_only ? (colour ? 3 : 1) : channels,
                  {}};
  check_extent(path, image.width, image.height);
  if (header_only) return picture;
  image.flags |=
      PNG_IMAGE_FLAG_16BIT_sRGB;  // 16-bit samples are read as they are, not as linear light
  // colour to one channel goes through RGB, with the weights that Pillow and libjpeg use
  const bool mix = colour && channels == 1;
  image.format = channels == 3 || mix ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  picture.pixels.resize(PNG_IMAGE_SIZE(image));
  png_color black{0, 0, 0};
  if (!png_image_finish_read(&image, &black, picture.pixels.data(), 0, nullptr))
    throw Error(Code::kData, fmt::format("the PNG does not decode ({})", image.message), path);
  if (mix) {
    const size_t n = picture.pixels.size() / 3;
    for (size_t i = 0; i < n; ++i) {
      const uint8_t* p = picture.pixels.data() + 3 * i;
      picture.pixels[i] = (p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 32768u) >> 16;
    }
    picture.pixels.resize(n);
  }
  return picture;
}

Picture dispatch(const std::string& path, const uint8_t* data, size_t size, int channels,
                 int shrink, bool header_only) {
  if (looks_like_jpeg(data, size))
    return decode_jpeg(path, data, size, channels, shrink, header_only);
  if (looks_like_png(data, size)) return decode_png(path, data, size, channels, header_only);
  bad_byte(path, 0, size == 0 ? "the file is empty" : "neither a JPEG nor a PNG file");
}

}  // namespace

bool looks_like_jpeg(const uint8_t* data, size_t size) {
  return size >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff;
}

bool looks_like_png(const uint8_t* data, size_t size) {
  return size >= 8 && std::memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0;
}

Picture picture_size(const std::string& path, const uint8_t* data, size_t size) {
  return dispatch(path, data, size, 3, 1, true);
}

Picture decode(const std::string& path, const uint8_t* data, size_t size, int channels,
               int shrink) {
  return dispatch(path, data, size, channels, shrink, false);
}

}  // namespace lehr::data
