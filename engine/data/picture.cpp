#include "engine/data/picture.h"

#include <fmt/format.h>
#include <png.h>
#include <zlib.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>
// jpeglib.h wants <cstdio> before it, and jerror.h jpeglib.h
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "engine/data/picture_kind.h"

namespace lehr::data {
namespace {

[[noreturn]] void bad(const std::string& path, uint64_t byte, const std::string& what,
                      const std::string& hint = "") {
  throw BadPicture(Code::kData, what, fmt::format("{} at byte {}", path, byte), hint);
}

void check_extent(const std::string& path, uint64_t width, uint64_t height) {
  if (width == 0 || height == 0 || width * height > kMostPixels)
    throw BadPicture(Code::kData, fmt::format("a picture of {} x {} pixels", width, height), path,
                     "Pictures have between 1 and 2^28 pixels.");
}

// --- colours, in Pillow's arithmetic

uint8_t luma(const uint8_t* rgb) {
  return (rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 32768u) >> 16;
}

// a * b / 255, rounded
uint32_t of_255(uint32_t a, uint32_t b) {
  const uint32_t t = a * b + 128;
  return ((t >> 8) + t) >> 8;
}

// of inks as JPEG files hold them, 255 for none
void inks_to_rgb(const uint8_t* cmyk, uint8_t* rgb) {
  const uint32_t light = cmyk[3];
  for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>(light - of_255(255 - cmyk[c], light));
}

// The picture in `channels`, from grey, RGB or (4) inks.
Picture in_channels(Picture picture, int channels) {
  const size_t pixels = static_cast<size_t>(picture.height) * picture.width;
  std::vector<uint8_t>& p = picture.pixels;
  if (picture.channels == 4) {
    for (size_t i = 0; i < pixels; ++i) {
      uint8_t rgb[3];
      inks_to_rgb(&p[4 * i], rgb);
      std::copy_n(rgb, 3, &p[3 * i]);
    }
    picture.channels = 3;
  }
  if (picture.channels == 3 && channels == 1) {
    for (size_t i = 0; i < pixels; ++i) p[i] = luma(&p[3 * i]);
  } else if (picture.channels == 1 && channels == 3) {
    p.resize(3 * pixels);
    for (size_t i = pixels; i-- > 0;) p[3 * i] = p[3 * i + 1] = p[3 * i + 2] = p[i];
  }
  picture.channels = channels;
  p.resize(pixels * channels);
  return picture;
}

// One file on its way through libjpeg or libpng. Both leave by longjmp, so nothing with a
// destructor lives in the frames that it crosses: what they make lies here.
struct Job {
  const uint8_t* data;
  size_t size;
  int shrink;
  bool header_only;
  uint64_t byte = 0;  // where it went wrong
  char message[JMSG_LENGTH_MAX] = "";
  bool unknown_kind = false;  // whole, for all that is known, but not to be read here
  Picture picture;
  uint8_t palette[256][3] = {};  // of a PNG
  bool has_palette = false;
};

// the picture's size is known; false when it is too large
bool make_room(Job& job, int height, int width, int channels) {
  job.picture.height = height;
  job.picture.width = width;
  job.picture.channels = channels;
  if (int64_t{height} * width > kMostPixels) return false;
  if (!job.header_only) job.picture.pixels.resize(int64_t{height} * width * channels);
  return true;
}

// --- JPEG

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

// Coded data that is missing or wrong, so that pixels are made up. All else that libjpeg warns of
// is how a file is written (odd parameters of a scan, stray bytes between segments): its pixels are
// those that were stored.
bool loses_pixels(int warning) {
  switch (warning) {
    case JWRN_HIT_MARKER:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_BOGUS_PROGRESSION:
      return true;
    default:
      return false;
  }
}

void jpeg_message(j_common_ptr info, int level) {
  if (level < 0 && loses_pixels(info->err->msg_code)) jpeg_fail(info);
}

bool is_unknown_kind(int error) {
  switch (error) {
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_COMPONENT_COUNT:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_NOT_COMPILED:
    case JERR_NOTIMPL:
    case JERR_SOF_UNSUPPORTED:
      return true;
    default:
      return false;
  }
}

J_COLOR_SPACE stored_colours(const jpeg_decompress_struct& info) {
  if (info.jpeg_color_space == JCS_GRAYSCALE) return JCS_GRAYSCALE;
  return info.num_components == 4 ? JCS_CMYK : JCS_RGB;
}

bool run_jpeg(Job& job) {
  jpeg_decompress_struct info;
  JpegErrors errors;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = jpeg_fail;
  errors.base.emit_message = jpeg_message;
  if (setjmp(errors.leave)) {
    std::memcpy(job.message, errors.message, sizeof job.message);
    job.byte = info.src ? job.size - std::min(job.size, info.src->bytes_in_buffer) : 0;
    job.unknown_kind = is_unknown_kind(errors.base.msg_code);
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, job.data, job.size);
  jpeg_read_header(&info, TRUE);
  if (job.header_only) {
    make_room(job, info.image_height, info.image_width, info.num_components == 1 ? 1 : 3);
    jpeg_destroy_decompress(&info);
    return true;
  }
  info.out_color_space = stored_colours(info);
  info.scale_num = 1;
  info.scale_denom = job.shrink;
  jpeg_start_decompress(&info);
  if (make_room(job, info.output_height, info.output_width, info.output_components)) {
    const size_t row = static_cast<size_t>(info.output_width) * info.output_components;
    while (info.output_scanline < info.output_height) {
      JSAMPROW line = job.picture.pixels.data() + info.output_scanline * row;
      jpeg_read_scanlines(&info, &line, 1);
    }
    jpeg_finish_decompress(&info);
  }
  jpeg_destroy_decompress(&info);
  return true;
}

// --- PNG

uint32_t big_endian(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

// walks the chunks: lengths inside the file, every CRC right, IEND last. libpng names no byte.
void check_png(const std::string& path, const uint8_t* data, size_t size) {
  size_t at = 8;
  for (;;) {
    if (size < at + 12) bad(path, size, "the PNG is cut short");
    const uint32_t length = big_endian(data + at);
    const uint8_t* type = data + at + 4;
    if (length > size - at - 12)
      bad(path, size,
          fmt::format("the PNG is cut short: its chunk at byte {} has {} bytes", at, length));
    if (crc32(0, type, length + 4) != big_endian(type + 4 + length))
      bad(path, at,
          fmt::format("the PNG is corrupt: the checksum of its chunk of {} bytes is wrong",
                      length));
    at += 12 + length;
    if (std::memcmp(type, "IEND", 4) == 0) return;
  }
}

void png_fail(png_structp png, png_const_charp message) {
  auto* job = static_cast<Job*>(png_get_error_ptr(png));
  std::snprintf(job->message, sizeof job->message, "%s", message);
  png_longjmp(png, 1);
}

void png_take(png_structp png, png_bytep out, size_t bytes) {
  auto* job = static_cast<Job*>(png_get_io_ptr(png));
  if (bytes > job->size - job->byte) {
    job->byte = job->size;
    png_error(png, "cut short");
  }
  std::memcpy(out, job->data + job->byte, bytes);
  job->byte += bytes;
}

// an index beyond the palette is black, as Pillow has it
void read_palette(png_structp png, png_infop info, Job& job) {
  png_colorp colours = nullptr;
  int count = 0;
  png_get_PLTE(png, info, &colours, &count);
  for (int i = 0; i < count; ++i) {
    job.palette[i][0] = colours[i].red;
    job.palette[i][1] = colours[i].green;
    job.palette[i][2] = colours[i].blue;
  }
  job.has_palette = true;
}

bool run_png(Job& job) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, png_fail,
                                           [](png_structp, png_const_charp) {});
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  if (!info) throw std::bad_alloc();
  if (setjmp(png_jmpbuf(png))) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  png_set_read_fn(png, &job, png_take);
  // gamma, profiles, texts: nothing of them changes a stored sample
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_set_chunk_malloc_max(png, 0);  // no chunk is larger than the file
  png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_read_info(png, info);
  const int type = png_get_color_type(png, info), depth = png_get_bit_depth(png, info);
  const bool colour = type & PNG_COLOR_MASK_COLOR, indexed = type == PNG_COLOR_TYPE_PALETTE;
  if (indexed) {
    read_palette(png, info, job);
    png_set_packing(png);
  } else {
    if (depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    if (depth == 16 && type == PNG_COLOR_TYPE_GRAY)
      png_set_scale_16(png);
    else
      png_set_strip_16(png);
    png_set_strip_alpha(png);
  }
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const int channels = job.header_only ? (colour ? 3 : 1) : colour && !indexed ? 3 : 1;
  if (make_room(job, png_get_image_height(png, info), png_get_image_width(png, info), channels) &&
      !job.header_only) {
    const size_t row = static_cast<size_t>(job.picture.width) * channels;
    for (int pass = 0; pass < passes; ++pass)
      for (int y = 0; y < job.picture.height; ++y)
        png_read_row(png, job.picture.pixels.data() + y * row, nullptr);
  }
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

// palette indices to colours
void look_up(Job& job) {
  Picture& picture = job.picture;
  const size_t pixels = picture.pixels.size();
  picture.channels = 3;
  picture.pixels.resize(3 * pixels);
  for (size_t i = pixels; i-- > 0;)
    std::copy_n(job.palette[picture.pixels[i]], 3, &picture.pixels[3 * i]);
}

Picture run(const std::string& path, const uint8_t* data, size_t size, int shrink,
            bool header_only) {
  const PictureKind kind = kind_of_bytes(data, size);
  if (!kind.is_read) {
    if (size == 0) bad(path, 0, "the file is empty");
    if (*kind.name) bad(path, 0, fmt::format("{}, no JPEG or PNG", kind.name), kind.hint);
    bad(path, 0, "neither a JPEG nor a PNG file");
  }
  Job job{data, size, shrink, header_only};
  if (data[0] == 0x89) {
    if (!header_only) check_png(path, data, size);
    if (!run_png(job)) bad(path, job.byte, fmt::format("the PNG is corrupt ({})", job.message));
    check_extent(path, job.picture.width, job.picture.height);
    if (job.has_palette && !header_only) look_up(job);
  } else {
    if (!run_jpeg(job)) {
      if (job.unknown_kind)
        bad(path, job.byte, fmt::format("a JPEG of a kind that is not read ({})", job.message),
            "Save it again as a plain JPEG or PNG, e.g. with ImageMagick: convert OLD NEW.png");
      bad(path, job.byte, fmt::format("the JPEG is corrupt or cut short ({})", job.message));
    }
    check_extent(path, job.picture.width, job.picture.height);
  }
  return std::move(job.picture);
}

}  // namespace

Picture picture_size(const std::string& path, const uint8_t* data, size_t size) {
  return run(path, data, size, 1, true);
}

Picture decode(const std::string& path, const uint8_t* data, size_t size, int channels,
               int shrink) {
  return in_channels(run(path, data, size, shrink, false), channels);
}

}  // namespace lehr::data
