#include "engine/data/array.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <cstring>

#include "engine/base/error.h"

namespace lehr::data {
namespace {

constexpr char kNpyMagic[] = "\x93NUMPY";

// throws when the elements that the header promises are not what the file holds
void check_size(const Array& array) {
  const uint64_t held = array.file.size - array.offset;
  uint64_t bytes = array.width;
  for (int64_t d : array.shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(d), &bytes)) bytes = UINT64_MAX;
  if (bytes > held)
    bad_byte(
        array.file.path, array.file.size,
        fmt::format("the content ends here, but its header promises [{}] = {} bytes after byte {}",
                    fmt::join(array.shape, ", "), bytes, array.offset),
        "The file is short: fetch it again.");
  if (bytes < held)
    bad_byte(array.file.path, array.offset + bytes,
             fmt::format("{} bytes follow after the [{}] elements of the header", held - bytes,
                         fmt::join(array.shape, ", ")));
}

Array parse_idx(Bytes file) {
  const uint8_t* p = file.begin();
  if (p[2] != 0x08)
    bad_byte(file.path, 2,
             fmt::format("element type 0x{:02x}, where only 0x08 (uint8) is read", p[2]));
  const int dims = p[3];
  if (dims < 1 || dims > 4)
    bad_byte(file.path, 3, fmt::format("{} dimensions, where 1 to 4 make sense", dims));
  Array array;
  array.offset = 4 + 4 * static_cast<size_t>(dims);
  if (file.size < array.offset)
    bad_byte(file.path, file.size,
             fmt::format("the IDX header of {} bytes is cut short", array.offset));
  for (int d = 0; d < dims; ++d) {
    const uint8_t* b = p + 4 + 4 * d;
    array.shape.push_back(int64_t{b[0]} << 24 | b[1] << 16 | b[2] << 8 | b[3]);
  }
  array.file = std::move(file);
  check_size(array);
  return array;
}

// the header is a Python dictionary literal: {'descr': '<i8', 'fortran_order': False, 'shape': (3,
// 4), }
struct NpyHeader {
  const std::string& path;
  std::string text;
  size_t start;  // in the file

  [[noreturn]] void fail(size_t at, const std::string& what, const std::string& hint = "") const {
    bad_byte(path, start + at, what, hint);
  }
  size_t value_of(const std::string& key) const {
    size_t at = text.find("'" + key + "'");
    if (at == std::string::npos) fail(0, fmt::format("the npy header has no '{}'", key));
    at = text.find_first_not_of(" :", at + key.size() + 2);
    if (at == std::string::npos) fail(text.size(), "the npy header is cut short");
    return at;
  }
};

Array parse_npy(Bytes file) {
  const uint8_t* p = file.begin();
  if (file.size < 12) bad_byte(file.path, file.size, "the npy header is cut short");
  const int major = p[6];
  if (major < 1 || major > 3)
    bad_byte(file.path, 6, fmt::format("npy version {}, where 1 to 3 exist", major));
  const size_t start = major == 1 ? 10 : 12;
  const size_t length = major == 1
                            ? p[8] | p[9] << 8
                            : p[8] | p[9] << 8 | p[10] << 16 | static_cast<size_t>(p[11]) << 24;
  if (file.size < start + length)
    bad_byte(file.path, file.size, fmt::format("the npy header of {} bytes is cut short", length));
  NpyHeader header{file.path, std::string(reinterpret_cast<const char*>(p) + start, length), start};

  Array array;
  array.offset = start + length;
  size_t at = header.value_of("descr");
  const std::string descr = header.text.substr(at, 5);  // '<i8'
  array.kind = descr.size() == 5 ? descr[2] : '?';
  array.width = descr.size() == 5 ? descr[3] - '0' : 0;
  const bool known =
      descr.size() == 5 && descr[0] == '\'' && descr[4] == '\'' &&
      (array.kind == 'u' || array.kind == 'i' || array.kind == 'f') &&
      (array.width == 1 || array.width == 2 || array.width == 4 || array.width == 8) &&
      (array.kind != 'f' || array.width >= 4);
  if (!known || (descr[1] == '>' && array.width > 1))
    header.fail(at, fmt::format("element type {}, where little-endian integers and floats are read",
                                header.text.substr(at, header.text.find(',', at) - at)));
  at = header.value_of("fortran_order");
  if (header.text.compare(at, 4, "True") == 0)
    header.fail(at, "the array is stored in Fortran order",
                "Save it with numpy.save(path, numpy.ascontiguousarray(array)).");
  at = header.value_of("shape");
  if (header.text[at] != '(') header.fail(at, "the shape is no tuple");
  for (++at; at < header.text.size() && header.text[at] != ')';) {
    if (header.text[at] == ' ' || header.text[at] == ',') {
      ++at;
      continue;
    }
    int64_t d = 0;
    const char* from = header.text.data() + at;
    auto [end, error] = std::from_chars(from, header.text.data() + header.text.size(), d);
    if (error != std::errc() || d < 0) header.fail(at, "the shape is no tuple of sizes");
    array.shape.push_back(d);
    at += end - from;
  }
  if (at >= header.text.size()) header.fail(at, "the shape is not closed");
  if (array.shape.empty()) header.fail(at, "the array is a single number");
  array.file = std::move(file);
  check_size(array);
  return array;
}

template <class T>
int64_t as_int64(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return static_cast<int64_t>(value);
}

int64_t integer_at(const Array& array, int64_t i) {
  const uint8_t* p = array.data() + i * array.width;
  const bool is_signed = array.kind == 'i';
  switch (array.width) {
    case 1:
      return is_signed ? as_int64<int8_t>(p) : as_int64<uint8_t>(p);
    case 2:
      return is_signed ? as_int64<int16_t>(p) : as_int64<uint16_t>(p);
    case 4:
      return is_signed ? as_int64<int32_t>(p) : as_int64<uint32_t>(p);
    default:
      return as_int64<int64_t>(p);
  }
}

}  // namespace

int64_t Array::count() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

bool looks_like_idx(const Bytes& file) {
  return file.size >= 4 && file.memory[0] == 0 && file.memory[1] == 0;
}

bool looks_like_npy(const Bytes& file) {
  return file.size >= 6 && std::memcmp(file.begin(), kNpyMagic, 6) == 0;
}

Array as_array(Bytes file) {
  if (looks_like_npy(file)) return parse_npy(std::move(file));
  if (looks_like_idx(file)) return parse_idx(std::move(file));
  if (file.size == 0) bad_byte(file.path, 0, "the file is empty");
  bad_byte(file.path, 0,
           "neither an IDX nor an npy file: it begins with neither 00 00 08 nor 93 'NUMPY'");
}

Array read_array(const std::string& path, const std::string& hint) {
  return as_array(read_bytes(path, hint));
}

void check_images(const Array& images) {
  if (images.kind != 'u' || images.width != 1)
    throw Error(Code::kData,
                fmt::format("the images are {}-bit '{}' numbers", 8 * images.width, images.kind),
                images.file.path, "Images are uint8: save them with array.astype(numpy.uint8).");
  const auto& shape = images.shape;
  bool good = shape.size() == 3 || shape.size() == 4;
  for (size_t d = 1; good && d < shape.size(); ++d) good = shape[d] >= 1 && shape[d] <= 65536;
  if (good && shape.size() == 4) good = shape[3] <= 16;
  if (!good)
    throw Error(Code::kData, fmt::format("the shape is [{}]", fmt::join(shape, ", ")),
                images.file.path, "Images are [N, H, W] or [N, H, W, C] with at most 16 channels.");
}

at::Tensor targets_of(const Array& labels, size_t classes) {
  const int64_t rows = labels.rows();
  if (labels.kind == 'f') {
    if (labels.shape.size() > 2)
      throw Error(Code::kData, fmt::format("targets of shape [{}]", fmt::join(labels.shape, ", ")),
                  labels.file.path, "Targets are [N] or [N, K].");
    auto values = at::empty({rows, labels.shape.size() == 2 ? labels.shape[1] : 1}, at::kFloat);
    float* out = values.data_ptr<float>();
    for (int64_t i = 0; i < values.numel(); ++i) {
      const uint8_t* p = labels.data() + i * labels.width;
      double value = 0;
      if (labels.width == 4) {
        float single;
        std::memcpy(&single, p, 4);
        value = single;
      } else {
        std::memcpy(&value, p, 8);
      }
      if (!std::isfinite(value))
        bad_byte(labels.file.path, labels.offset + i * labels.width,
                 fmt::format("target {} is {}", i, value));
      out[i] = static_cast<float>(value);
    }
    return values;
  }
  if (labels.shape.size() != 1)
    throw Error(Code::kData, fmt::format("labels of shape [{}]", fmt::join(labels.shape, ", ")),
                labels.file.path, "Labels are [N], one class number per sample.");
  auto targets = at::empty({rows}, at::kLong);
  int64_t* out = targets.data_ptr<int64_t>();
  for (int64_t i = 0; i < rows; ++i) {
    out[i] = integer_at(labels, i);
    if (out[i] < 0 || (classes > 0 && out[i] >= static_cast<int64_t>(classes)))
      bad_byte(labels.file.path, labels.offset + i * labels.width,
               classes > 0 ? fmt::format("label {}, but there are {} classes", out[i], classes)
                           : fmt::format("label {}, where classes count from 0", out[i]));
  }
  return targets;
}

}  // namespace lehr::data
