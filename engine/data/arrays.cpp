// Images in memory, from IDX or npy files: the pixels stay as they were read, uint8, once.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <future>
#include <numeric>
#include <optional>

#include "engine/base/error.h"
#include "engine/data/array.h"
#include "engine/data/images.h"

namespace lehr::data {
namespace {

struct Files {
  Array images, labels;
};

class ArrayImages : public ImageDataset {
 public:
  explicit ArrayImages(const FieldSource& source);

 protected:
  const uint8_t* address(Split split, int64_t sample) const override {
    const Part& part = parts_[static_cast<int>(split)];
    return part.base + (part.rows.empty() ? sample : part.rows[sample]) * image_bytes_;
  }
  const uint8_t* pixels(Split split, int64_t sample, Random*,
                        std::vector<uint8_t>&) const override {
    return address(split, sample);
  }

 private:
  struct Part {
    const uint8_t* base = nullptr;
    std::vector<int64_t> rows;  // of the file; empty: all of them
  };
  std::vector<Array> kept_;  // own the pixels
  Part parts_[3];
  int64_t image_bytes_ = 0;
};

// reads the files of one set, images and labels side by side
std::optional<std::future<Files>> start(const std::string& images, const std::string& labels,
                                        const std::string& field, const std::string& hint) {
  if (images.empty() && labels.empty()) return std::nullopt;
  if (images.empty() || labels.empty())
    throw Error(Code::kRecipe, fmt::format("{}_images and {}_labels go together", field, field),
                fmt::format("data.{}_{}", field, images.empty() ? "images" : "labels"),
                "Give both or neither.");
  return std::async(std::launch::async, [=] {
    Files files{read_array(images, hint), read_array(labels, hint)};
    check_images(files.images);
    if (files.images.rows() != files.labels.rows())
      throw Error(Code::kData,
                  fmt::format("{} images, but {} labels in {}", files.images.rows(),
                              files.labels.rows(), labels),
                  images, "The two files belong to different sets.");
    return files;
  });
}

ArrayImages::ArrayImages(const FieldSource& source) {
  const auto common = source.get<DataFields>();
  const auto fields = source.get<ArrayFields>();
  if (fields.train_images.empty())
    throw Error(Code::kRecipe, "no training images are given", "data.train_images");
  const std::string hint = missing_hint(common.name);
  auto train_future = start(fields.train_images, fields.train_labels, "train", hint);
  auto validation_future =
      start(fields.validation_images, fields.validation_labels, "validation", hint);
  auto test_future = start(fields.test_images, fields.test_labels, "test", hint);

  Files train = train_future->get();
  const std::vector<int64_t> extent(train.images.shape.begin() + 1, train.images.shape.end());
  info_.is_image = true;
  info_.height = extent[0], info_.width = extent[1],
  info_.channels = extent.size() == 3 ? extent[2] : 1;
  image_bytes_ = info_.height * info_.width * info_.channels;
  info_.classes = common.classes;
  auto targets = targets_of(train.labels, info_.classes.size());
  if (train.images.rows() == 0)
    throw Error(Code::kData, "no images are in it", fields.train_images);
  if (targets.scalar_type() == at::kFloat) {
    if (!info_.classes.empty())
      throw Error(Code::kRecipe, "classes are named, but the labels are floats", "data.classes",
                  "Leave it out for regression, or save the labels as integers.");
    info_.values = targets.size(1);
  } else if (info_.classes.empty()) {
    const int64_t highest = targets.max().item<int64_t>();
    if (highest > 100000)
      throw Error(Code::kData, fmt::format("label {} is no class number", highest),
                  fields.train_labels, "For regression save the targets as floats.");
    for (int64_t c = 0; c <= highest; ++c) info_.classes.push_back(std::to_string(c));
  }

  std::vector<std::string> hashes;
  auto keep = [&](Files& files, Split split, at::Tensor set_targets) {
    hashes.push_back(files.images.file.hash);
    hashes.push_back(files.labels.file.hash);
    parts_[static_cast<int>(split)].base = files.images.data();
    targets_[static_cast<int>(split)] = std::move(set_targets);
    kept_.push_back(std::move(files.images));
  };
  auto other = [&](std::optional<std::future<Files>>& future, Split split) {
    if (!future) return;
    Files files = future->get();
    if (!std::equal(files.images.shape.begin() + 1, files.images.shape.end(), extent.begin(),
                    extent.end()))
      throw Error(Code::kData,
                  fmt::format("images of shape [{}]", fmt::join(files.images.shape, ", ")),
                  files.images.file.path,
                  fmt::format("The training images are [N, {}].", fmt::join(extent, ", ")));
    auto set_targets = targets_of(files.labels, info_.classes.size());
    if (set_targets.scalar_type() != targets.scalar_type() || set_targets.dim() != targets.dim())
      throw Error(Code::kData, "its labels are of another kind than the training labels",
                  files.labels.file.path);
    keep(files, split, set_targets);
  };
  keep(train, Split::kTrain, targets);
  other(validation_future, Split::kValidation);
  other(test_future, Split::kTest);
  info_.fingerprint = fingerprint_of(hashes);
  if (!test_future) targets_[2] = targets.slice(0, 0, 0);

  if (!validation_future) {
    auto [kept, held] = hold_out(targets.size(0), {}, common.validation_fraction, common.split_seed,
                                 "data.validation_fraction");
    targets_[0] = targets.index_select(0, at::tensor(kept, at::kLong));
    targets_[1] = targets.index_select(0, at::tensor(held, at::kLong));
    if (!held.empty()) {
      parts_[1] = {parts_[0].base, std::move(held)};
      parts_[0].rows = std::move(kept);
    }
  }

  std::vector<int64_t> all(size(Split::kTrain));
  std::iota(all.begin(), all.end(), 0);
  fit(source.get<ImageFields>(), all);
}

}  // namespace

std::shared_ptr<Dataset> open_arrays(const FieldSource& fields) {
  return std::make_shared<ArrayImages>(fields);
}

}  // namespace lehr::data
