#include "engine/data/raw.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "engine/base/error.h"
#include "engine/data/array.h"
#include "engine/data/csv.h"
#include "engine/data/listing.h"
#include "engine/data/picture.h"

namespace lehr::data {
namespace {

RawKind kind_of(const Bytes& file) {
  if (looks_like_jpeg(file.begin(), file.size) || looks_like_png(file.begin(), file.size))
    return RawKind::kPicture;
  if (looks_like_npy(file) || looks_like_idx(file)) return RawKind::kArray;
  return RawKind::kTable;
}

// uint8 [N, H, W, C] of an array, without a copy
at::Tensor images_of(Array array) {
  check_images(array);
  std::vector<int64_t> shape = array.shape;
  if (shape.size() == 3) shape.push_back(1);
  auto* data = const_cast<uint8_t*>(array.data());
  return at::from_blob(
      data, shape, [kept = array.file.memory](void*) {}, at::kByte);
}

at::Tensor picture_images(const std::string& path, const RawImageShape& shape) {
  // as stored means colour where there is colour
  int64_t channels = shape.channels;
  if (channels == 0) {
    const Bytes file = read_bytes(path);
    channels = picture_size(path, file.begin(), file.size).channels;
  }
  if (channels != 1 && channels != 3)
    throw Error(Code::kData,
                fmt::format("a picture file has 1 or 3 channels, the model takes {}", channels),
                path, "Give the images as an npy array.");
  View view{static_cast<int>(shape.height), static_cast<int>(shape.width),
            static_cast<int>(channels),
            static_cast<int>(shape.resize ? shape.resize : std::max(shape.height, shape.width))};
  const Picture picture = load_view(path, view);
  auto tensor = at::empty({1, picture.height, picture.width, picture.channels}, at::kByte);
  std::memcpy(tensor.data_ptr<uint8_t>(), picture.pixels.data(), picture.pixels.size());
  return tensor;
}

}  // namespace

RawKind raw_kind(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return RawKind::kFolder;
  return kind_of(read_bytes(path));
}

RawImageShape raw_image_shape(const DataInfo& info) {
  return {info.channels, info.height, info.width, info.resize};
}

RawBatch read_raw_images(const std::vector<std::string>& paths, const RawImageShape& shape,
                         const StringList& classes) {
  std::vector<at::Tensor> parts;
  std::vector<int64_t> targets;
  auto add = [&](at::Tensor images, const std::string& path) {
    const std::vector<int64_t> want = {shape.height, shape.width, shape.channels};
    if (shape.height > 0 && !std::equal(want.begin(), want.end(), images.sizes().begin() + 1))
      throw Error(
          Code::kData, fmt::format("images of [{}]", fmt::join(images.sizes().slice(1), ", ")),
          path,
          fmt::format("The model takes [{}] (height, width, channels).", fmt::join(want, ", ")));
    if (!parts.empty() && parts[0].sizes().slice(1) != images.sizes().slice(1))
      throw Error(Code::kData,
                  fmt::format("images of [{}], but those before are [{}]",
                              fmt::join(images.sizes().slice(1), ", "),
                              fmt::join(parts[0].sizes().slice(1), ", ")),
                  path, "Give images of one size at a time.");
    parts.push_back(std::move(images));
  };
  for (const auto& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      Bytes file = read_bytes(path);
      switch (kind_of(file)) {
        case RawKind::kPicture:
          add(picture_images(path, shape), path);
          break;
        case RawKind::kArray:
          add(images_of(as_array(std::move(file))), path);
          break;
        default:
          bad_byte(path, 0, "neither images (IDX, npy, JPEG, PNG) nor a folder of them");
      }
      continue;
    }
    const PictureListing listing = list_pictures(path);
    for (const auto& file : listing.files) {
      add(picture_images(path + "/" + file.name, shape), path + "/" + file.name);
      const auto& name = listing.classes[file.cls];
      if (classes.empty() || name.empty()) continue;
      auto known = std::find(classes.begin(), classes.end(), name);
      if (known == classes.end())
        throw Error(Code::kData,
                    fmt::format("its folder '{}' is none of the model's classes", name), path,
                    fmt::format("Classes are {}.", fmt::join(classes, ", ")));
      targets.push_back(known - classes.begin());
    }
  }
  if (parts.empty()) throw Error(Code::kUsage, "no image files are given");
  RawBatch raw;
  raw.images = parts.size() == 1 ? parts[0] : at::cat(parts);
  if (raw.images.size(3) == 1) raw.images = raw.images.squeeze(3);
  if (!targets.empty()) {
    if (static_cast<int64_t>(targets.size()) != raw.images.size(0))
      throw Error(Code::kData, "some of these images lie in class folders, others do not",
                  paths[0]);
    raw.targets = at::tensor(targets, at::kLong);
  }
  return raw;
}

RawBatch read_raw_table(const std::string& path, const StringList& number_columns,
                        const StringList& string_columns, const std::string& target,
                        const StringList& classes, const std::string& delimiter) {
  const Bytes file = read_bytes(path);
  std::vector<Dictionary> dictionaries;
  Dictionary known;
  for (const auto& name : classes) known.code(name);
  const TableRows table = read_table(file, parse_delimiter(delimiter),
                                     {number_columns, string_columns, target, !classes.empty()},
                                     dictionaries, known, false);
  RawBatch raw;
  const int64_t columns = number_columns.size(), strings = string_columns.size();
  raw.numbers = at::empty({table.rows, columns}, at::kDouble);
  std::copy(table.numbers.begin(), table.numbers.end(), raw.numbers.data_ptr<double>());
  for (int64_t row = 0; row < table.rows; ++row) {
    auto& texts = raw.strings.emplace_back();
    for (int64_t s = 0; s < strings; ++s)
      texts.push_back(dictionaries[s].texts()[table.codes[row * strings + s]]);
  }
  if (target.empty()) return raw;
  if (!classes.empty())
    raw.targets = at::tensor(table.labels, at::kLong);
  else
    raw.targets = at::tensor(table.values, at::kDouble).to(at::kFloat).unsqueeze(1);
  return raw;
}

at::Tensor read_targets(const std::string& path, const StringList& classes) {
  return targets_of(read_array(path), classes.size());
}

}  // namespace lehr::data
