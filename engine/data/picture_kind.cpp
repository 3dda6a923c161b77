#include "engine/data/picture_kind.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "engine/base/error.h"
#include "engine/base/what_is.h"

namespace lehr::data {
namespace {

constexpr char kConvertPicture[] =
    "Convert it to PNG or JPEG, e.g. with ImageMagick: convert OLD NEW.png";

struct Known {
  size_t at;  // where `bytes` stand
  std::string_view bytes;
  PictureKind kind;
};

using namespace std::string_view_literals;
constexpr PictureKind picture(const char* name) { return {name, kConvertPicture}; }
constexpr Known kKnown[] = {
    {0, "\xff\xd8\xff"sv, {"a JPEG picture", "", true}},
    {0, "\x89PNG\r\n\x1a\n"sv, {"a PNG picture", "", true}},
    {8, "WEBP"sv, picture("a WebP picture")},
    {0, "GIF8"sv, picture("a GIF picture")},
    {0, "II*\0"sv, picture("a TIFF picture")},
    {0, "MM\0*"sv, picture("a TIFF picture")},
    {0, "II+\0"sv, picture("a TIFF picture")},
    {0, "MM\0+"sv, picture("a TIFF picture")},
    {4, "ftypheic"sv, picture("a HEIC picture")},
    {4, "ftypheix"sv, picture("a HEIC picture")},
    {4, "ftypmif1"sv, picture("a HEIC picture")},
    {4, "ftypmsf1"sv, picture("a HEIC picture")},
    {4, "ftypavi"sv, picture("an AVIF picture")},
    {4, "ftyp"sv, {"a video", "Save its frames as pictures."}},
    {0, "\0\0\0\x0cjP  "sv, picture("a JPEG 2000 picture")},
    {0, "\xff\x4f\xff\x51"sv, picture("a JPEG 2000 picture")},
    {0, "\0\0\0\x0cJXL "sv, picture("a JPEG XL picture")},
    {0, "\xff\x0a"sv, picture("a JPEG XL picture")},
    {0, "8BPS"sv, picture("a Photoshop picture")},
    {0, "qoif"sv, picture("a QOI picture")},
    {0, "DDS "sv, picture("a DDS picture")},
    {0, "\x76\x2f\x31\x01"sv, picture("an OpenEXR picture")},
    {0, "\0\0\x01\0"sv, picture("an icon (ICO)")},
    {128, "DICM"sv, picture("a DICOM picture")},
    {0, "<svg"sv, picture("an SVG drawing")},
    {0,
     "\0\x05\x16\x07"sv,
     {"what macOS notes of a file (AppleDouble)", "Remove it: it holds no data."}},
    {0, "<!DOCTYPE html"sv, {"a web page", "The download failed: fetch it again."}},
    {0, "<!doctype html"sv, {"a web page", "The download failed: fetch it again."}},
    {0, "<html"sv, {"a web page", "The download failed: fetch it again."}},
};

bool starts(const uint8_t* data, size_t size, size_t at, std::string_view bytes) {
  return size >= at + bytes.size() && std::memcmp(data + at, bytes.data(), bytes.size()) == 0;
}

}  // namespace

PictureKind kind_of_bytes(const uint8_t* data, size_t size) {
  for (const Known& known : kKnown)
    if (starts(data, size, known.at, known.bytes)) return known.kind;
  // two letters alone are weak: four bytes that are always 0 come along
  if (starts(data, size, 0, "BM") && starts(data, size, 6, "\0\0\0\0"sv))
    return picture("a BMP picture");
  if (size >= 3 && data[0] == 'P' && data[1] >= '1' && data[1] <= '7' &&
      std::strchr(" \t\r\n", data[2]))
    return picture("a PNM picture");
  if (const FileKind* other = what_is({reinterpret_cast<const char*>(data), size}))
    return {other->name, other->remedy};
  return {};
}

PictureKind kind_of_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  uint8_t bytes[kKindBytes];
  const ssize_t n = fd < 0 ? -1 : ::read(fd, bytes, sizeof bytes);
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (n < 0) throw Error(Code::kData, fmt::format("cannot read: {}", strerror(error)), path);
  return kind_of_bytes(bytes, static_cast<size_t>(n));
}

}  // namespace lehr::data
