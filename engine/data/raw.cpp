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
#include "engine/data/picture_kind.h"

namespace lehr::data {
namespace {

// uint8 [N, H, W, C] of an array, without a copy
at::Tensor images_of(Array array) {
  check_images(array);
  std::vector<int64_t> shape = array.shape;
  if (shape.size() == 3) shape.push_back(1);
  auto* data = const_cast<uint8_t*>(array.data());
  return at::from_blob(
      data, shape, [kept = array.file.memory](void*) {}, at::kByte);
}

}  // namespace

RawImages::RawImages(const std::vector<std::string>& paths, const View& view,
                     const StringList& classes)
    : view_(view) {
  std::vector<int64_t> targets;
  const bool by_class = !classes.empty();
  for (const auto& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      Bytes file = read_bytes(path);
      const PictureKind kind = kind_of_bytes(file.begin(), file.size);
      if (kind.is_read) {
        add({path, {}}, 1);
      } else if (looks_like_npy(file) || looks_like_idx(file)) {
        at::Tensor images = images_of(as_array(std::move(file)));
        const int64_t rows = images.size(0);
        add({path, std::move(images)}, rows);
      } else {
        bad_byte(path, 0,
                 *kind.name ? fmt::format("{}, no images (IDX, npy, JPEG, PNG)", kind.name)
                            : "neither images (IDX, npy, JPEG, PNG) nor a folder of them",
                 kind.hint);
      }
      continue;
    }
    const PictureListing listing =
        list_pictures(path, by_class ? Folders::kClasses : Folders::kAny);
    passed_over_.insert(passed_over_.end(), listing.passed_over.begin(), listing.passed_over.end());
    std::vector<int64_t> numbers;  // of the listing's classes
    for (const auto& name : listing.classes) {
      auto known = std::find(classes.begin(), classes.end(), name);
      if (known == classes.end())
        throw Error(Code::kData,
                    fmt::format("its folder '{}' is none of the model's classes", name), path,
                    fmt::format("Classes are {}.", fmt::join(classes, ", ")));
      numbers.push_back(known - classes.begin());
    }
    for (const auto& file : listing.files) {
      add({path + "/" + file.name, {}}, 1);
      if (by_class) targets.push_back(numbers[file.cls]);
    }
  }
  if (sources_.empty()) throw Error(Code::kUsage, "no image files are given");
  if (targets.empty()) return;
  if (static_cast<int64_t>(targets.size()) != size())
    throw Error(Code::kData, "some of these images lie in class folders, others do not", paths[0]);
  targets_ = at::tensor(targets, at::kLong);
}

void RawImages::add(Source source, int64_t images) {
  const std::vector<int64_t> want = {view_.height, view_.width, view_.channels};
  if (!source.images.defined()) {
    holds_pictures_ = true;
    if (view_.channels != 1 && view_.channels != 3)
      throw Error(
          Code::kData,
          fmt::format("a picture file has 1 or 3 channels, the model takes {}", view_.channels),
          source.path, "Give the images as an npy array.");
  } else if (const auto has = source.images.sizes().slice(1); has != at::IntArrayRef(want)) {
    throw Error(
        Code::kData, fmt::format("images of [{}]", fmt::join(has, ", ")), source.path,
        fmt::format("The model takes [{}] (height, width, channels).", fmt::join(want, ", ")));
  }
  sources_.push_back(std::move(source));
  first_.push_back(first_.back() + images);
}

size_t RawImages::source_of(int64_t image) const {
  return std::upper_bound(first_.begin(), first_.end(), image) - first_.begin() - 1;
}

at::Tensor RawImages::read(int64_t begin, int64_t end, const LeaveOut& leave_out) const {
  const int64_t bytes = int64_t{view_.height} * view_.width * view_.channels;
  at::Tensor images =
      at::empty({end - begin, view_.height, view_.width, view_.channels}, at::kByte);
  uint8_t* out = images.data_ptr<uint8_t>();
  int64_t kept = 0;
  for (int64_t i = begin; i < end; ++i) {
    const size_t s = source_of(i);
    const Source& source = sources_[s];
    try {
      if (source.images.defined()) {
        std::memcpy(out + kept * bytes, source.images.data_ptr<uint8_t>() + (i - first_[s]) * bytes,
                    bytes);
      } else {
        const Picture picture = load_view(source.path, view_);
        std::copy(picture.pixels.begin(), picture.pixels.end(), out + kept * bytes);
      }
      ++kept;
    } catch (const BadPicture& why) {
      if (!leave_out) throw;
      leave_out(i, why);
    }
  }
  images = images.slice(0, 0, kept);
  return view_.channels == 1 ? images.squeeze(3) : images;
}

struct RawTable::State {
  State(const std::string& path, const RawColumns& c)
      : columns(c),
        csv(path, parse_delimiter(c.delimiter)),
        rows(csv, path, {c.numbers, c.strings, c.target, !c.classes.empty(), c.missing},
             dictionaries, classes, false) {
    for (const auto& name : c.classes) classes.code(name);
  }
  const RawColumns columns;
  CsvReader csv;
  std::vector<Dictionary> dictionaries;
  Dictionary classes;
  TableReader rows;
};

RawTable::RawTable(const std::string& path, const RawColumns& columns)
    : state_(std::make_unique<State>(path, columns)) {}

RawTable::~RawTable() = default;

RawBatch RawTable::read(int64_t most) {
  State& s = *state_;
  s.dictionaries.assign(s.columns.strings.size(), {});  // texts of these rows only
  TableRows table;
  s.rows.read(table, most);
  RawBatch raw;
  const int64_t columns = s.columns.numbers.size(), strings = s.columns.strings.size();
  raw.numbers = at::empty({table.rows, columns}, at::kDouble);
  std::copy(table.numbers.begin(), table.numbers.end(), raw.numbers.data_ptr<double>());
  for (int64_t row = 0; row < table.rows; ++row) {
    auto& texts = raw.strings.emplace_back();
    for (int64_t k = 0; k < strings; ++k)
      texts.push_back(s.dictionaries[k].texts()[table.codes[row * strings + k]]);
  }
  if (s.columns.target.empty()) return raw;
  if (!s.columns.classes.empty())
    raw.targets = at::tensor(table.labels, at::kLong);
  else
    raw.targets = at::tensor(table.values, at::kDouble).to(at::kFloat).unsqueeze(1);
  return raw;
}

at::Tensor read_targets(const std::string& path, const StringList& classes) {
  return targets_of(read_array(path), classes.size());
}

}  // namespace lehr::data
