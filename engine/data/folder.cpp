// Picture files, a folder per class: read, decoded and scaled by the loader's threads, sample by
// sample, so that a set need not fit into memory.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "engine/data/bytes.h"
#include "engine/data/images.h"
#include "engine/data/listing.h"
#include "engine/data/picture.h"

namespace lehr::data {
namespace {

// mean and std are taken over this many training images, evenly spread: decoding all takes too long
constexpr int64_t kMeasured = 512;
// the bytes of up to this many files per set enter the fingerprint; names and sizes of all do
constexpr size_t kHashed = 4096;

class FolderImages : public ImageDataset {
 public:
  explicit FolderImages(const FieldSource& source);

 protected:
  const uint8_t* pixels(Split split, int64_t sample, Random* random,
                        std::vector<uint8_t>& scratch) const override;

 private:
  void add(Split split, const std::string& folder, const std::string& hint,
           std::vector<std::string>& hashes);
  Box random_box(const Picture& stored, Random& random) const;

  FolderFields fields_;
  View view_;
  std::vector<std::string> paths_[3];
};

void FolderImages::add(Split split, const std::string& folder, const std::string& hint,
                       std::vector<std::string>& hashes) {
  const PictureListing listing = list_pictures(folder, Folders::kClasses, hint);
  if (info_.classes.empty()) info_.classes = listing.classes;
  if (info_.classes.size() == 1)
    throw Error(Code::kData,
                fmt::format("there is but one class, '{}'", info_.classes[0]) +
                    lines_below(listing.passed_over),
                folder,
                "Images lie in one sub-folder per class. Is this folder one level too high?");
  for (const auto& line : listing.passed_over)
    remarks_.push_back(fmt::format("{}: {}", folder, line));
  std::vector<int64_t> numbers;  // of the listing's classes
  for (const auto& name : listing.classes) {
    auto known = std::find(info_.classes.begin(), info_.classes.end(), name);
    if (known == info_.classes.end())
      throw Error(
          Code::kData,
          fmt::format("its folder '{}' is none of the {} classes", name, info_.classes.size()),
          folder, "Name the classes in data.classes, or remove the folder.");
    numbers.push_back(known - info_.classes.begin());
  }
  std::vector<int64_t> targets;
  std::string names;
  const size_t stride = std::max<size_t>(1, listing.files.size() / kHashed);
  for (size_t i = 0; i < listing.files.size(); ++i) {
    const auto& file = listing.files[i];
    targets.push_back(numbers[file.cls]);
    paths_[static_cast<int>(split)].push_back(folder + "/" + file.name);
    fmt::format_to(std::back_inserter(names), "{} {}\n", file.name, file.bytes);
    if (i % stride == 0) hashes.push_back(xxh3_128_of_file(paths_[static_cast<int>(split)].back()));
  }
  hashes.push_back(xxh3_128(names.data(), names.size()));
  targets_[static_cast<int>(split)] = at::tensor(targets, at::kLong);
}

FolderImages::FolderImages(const FieldSource& source) {
  const auto common = source.get<DataFields>();
  fields_ = source.get<FolderFields>();
  if (fields_.train_folder.empty())
    throw Error(Code::kRecipe, "no folder of training images is given", "data.train_folder");
  view_ = picture_view(source);
  info_.is_image = true;
  info_.height = view_.height, info_.width = view_.width;
  info_.channels = view_.channels;
  info_.resize = view_.shorter;
  info_.classes = common.classes;
  if (fields_.bad_samples == "skip") most_left_out_ = fields_.max_bad_samples;
  remarks_.push_back(fmt::format(
      "pictures are scaled to a shorter side of {} and cropped to the centre {} x {}, in {}; EXIF "
      "orientation is not applied",
      view_.shorter, view_.height, view_.width, view_.channels == 1 ? "grey" : "RGB"));

  const std::string hint = missing_hint(common.name);
  std::vector<std::string> hashes;
  add(Split::kTrain, fields_.train_folder, hint, hashes);
  if (!fields_.validation_folder.empty())
    add(Split::kValidation, fields_.validation_folder, hint, hashes);
  if (!fields_.test_folder.empty())
    add(Split::kTest, fields_.test_folder, hint, hashes);
  else
    targets_[2] = at::empty({0}, at::kLong);
  info_.fingerprint = fingerprint_of(hashes);

  if (fields_.validation_folder.empty()) {
    // a file is known by its name below the folder, so that new files move nobody
    std::vector<uint64_t> ids;
    const std::vector<std::string> all = std::move(paths_[0]);
    for (const auto& path : all) {
      const std::string name = path.substr(fields_.train_folder.size());
      ids.push_back(std::stoull(xxh3_128(name.data(), name.size()).substr(0, 16), nullptr, 16));
    }
    auto [kept, held] = hold_out(static_cast<int64_t>(all.size()), ids, common.validation_fraction,
                                 common.split_seed, "data.validation_fraction");
    targets_[1] = targets_[0].index_select(0, at::tensor(held, at::kLong));
    targets_[0] = targets_[0].index_select(0, at::tensor(kept, at::kLong));
    paths_[0].clear();
    for (int64_t i : kept) paths_[0].push_back(all[i]);
    for (int64_t i : held) paths_[1].push_back(all[i]);
  }

  std::vector<int64_t> looked_at;
  const int64_t n = size(Split::kTrain), measured = std::min(n, kMeasured);
  for (int64_t i = 0; i < measured; ++i) looked_at.push_back(i * n / measured);
  fit(source.get<ImageFields>(), looked_at);
}

// area and aspect as in torchvision's RandomResizedCrop: ten tries, then the largest centre
Box FolderImages::random_box(const Picture& stored, Random& random) const {
  const double area = static_cast<double>(stored.height) * stored.width;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double share =
        fields_.random_resized_crop + random.uniform() * (1 - fields_.random_resized_crop);
    const double aspect = std::exp((2 * random.uniform() - 1) * std::log(4.0 / 3.0));
    const int width = static_cast<int>(std::lround(std::sqrt(area * share * aspect)));
    const int height = static_cast<int>(std::lround(std::sqrt(area * share / aspect)));
    if (width < 1 || height < 1 || width > stored.width || height > stored.height) continue;
    const int top = static_cast<int>(random.below(stored.height - height + 1));
    const int left = static_cast<int>(random.below(stored.width - width + 1));
    return {top, left, height, width};
  }
  const int side = std::min(stored.height, stored.width);
  return {(stored.height - side) / 2, (stored.width - side) / 2, side, side};
}

const uint8_t* FolderImages::pixels(Split split, int64_t sample, Random* random,
                                    std::vector<uint8_t>& scratch) const {
  const std::string& path = paths_[static_cast<int>(split)][sample];
  if (!random || fields_.random_resized_crop == 0) {
    scratch = load_view(path, view_).pixels;
    return scratch.data();
  }
  const Bytes file = read_bytes(path);
  const Picture stored = picture_size(path, file.begin(), file.size);
  Box box = random_box(stored, *random);
  const int shrink = shrink_for(box, view_.height, view_.width);
  const Picture picture = decode(path, file.begin(), file.size, view_.channels, shrink);
  // a PNG does not shrink
  const int scale = picture.height == stored.height ? 1 : shrink;
  box = {box.top / scale, box.left / scale, std::max(1, box.height / scale),
         std::max(1, box.width / scale)};
  scratch.resize(static_cast<size_t>(view_.height) * view_.width * view_.channels);
  resize(picture, box, view_.height, view_.width, scratch.data());
  return scratch.data();
}

}  // namespace

View picture_view(const FieldSource& source) {
  const auto fields = source.get<FolderFields>();
  const int64_t shorter = fields.resize ? fields.resize : fields.image_size;
  if (shorter < fields.image_size)
    throw Error(Code::kRecipe, fmt::format("{} is below image_size {}", shorter, fields.image_size),
                "data.resize", "The centre that is cropped would be larger than the image.");
  const int size = static_cast<int>(fields.image_size);
  return {size, size, fields.grey ? 1 : 3, static_cast<int>(shorter)};
}

std::shared_ptr<Dataset> open_folder(const FieldSource& fields) {
  return std::make_shared<FolderImages>(fields);
}

}  // namespace lehr::data
