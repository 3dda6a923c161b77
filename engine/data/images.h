// What every source of images shares: normalisation fitted on training images, augmentation,
// batches, the TorchScript twin of it. A source says only where the pixels of a sample come from.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/random.h"
#include "engine/data/dataset.h"
#include "engine/data/fields.h"
#include "engine/data/picture.h"
#include "engine/data/pixels.h"

namespace lehr::data {

class ImageDataset : public Dataset {
 public:
  const DataInfo& info() const final { return info_; }
  int64_t size(Split split) const final { return at(split).size(0); }
  Batch allocate(int64_t size) const final;
  void fill(Split split, const int64_t* samples, int64_t begin, int64_t end, bool augment,
            uint64_t seed, int64_t epoch, Batch& batch) const final;
  RawBatch raw(Split split, const std::vector<int64_t>& samples) const final;
  Preprocessing preprocessing() const final;
  std::string statistics() const final { return statistics_; }
  StringList remarks() const final;
  StringList left_out() const final;

 protected:
  // The uint8 [H, W, C] pixels of a sample: a pointer into the source, or into `scratch`. `random`
  // is set when the source may augment too. May throw BadPicture.
  virtual const uint8_t* pixels(Split split, int64_t sample, Random* random,
                                std::vector<uint8_t>& scratch) const = 0;
  // Where those pixels lie, if they lie in memory: fill() fetches them into the cache ahead of use.
  virtual const uint8_t* address(Split, int64_t /*sample*/) const { return nullptr; }
  // To be called by the constructor of a source once info_, targets_ and its pixels are ready.
  // `looked_at`: training samples that mean and std are taken over.
  void fit(const ImageFields& fields, const std::vector<int64_t>& looked_at);

  DataInfo info_;
  StringList remarks_;  // of the source; how many images of which class comes of itself
  std::optional<int64_t> most_left_out_;  // data.bad_samples: skip, and the limit
  at::Tensor targets_[3];                 // by Split: int64 [N] or float32 [N, K]

 private:
  // nullptr for a sample that is left out
  const uint8_t* good_pixels(Split split, int64_t sample, Random* random,
                             std::vector<uint8_t>& scratch) const;
  const at::Tensor& at(Split split) const { return targets_[static_cast<int>(split)]; }
  Window draw(Random& random) const;

  ImageFields fields_;
  std::vector<float> scale_, shift_;
  Normalizer normalizer_;
  std::string statistics_;
  mutable std::mutex left_out_mutex_;
  mutable std::map<std::pair<Split, int64_t>, std::string> left_out_;
};

// Which rows of a source of `rows` samples train and which validate. `ids`: what is hashed (row
// numbers when empty). Throws Error{kRecipe} when either is empty though it should not be.
struct HeldOut {
  std::vector<int64_t> kept, held;
};
HeldOut hold_out(int64_t rows, const std::vector<uint64_t>& ids, double fraction, uint64_t seed,
                 const std::string& field);

// How `source: image_folder` makes the images of a model from picture files. Training and every
// verb on an artefact read by this: an artefact carries its recipe.
View picture_view(const FieldSource& fields);

// "Run scripts/data NAME", where data.name is given.
std::string missing_hint(const std::string& name);
// One hash of many, in order.
std::string fingerprint_of(const std::vector<std::string>& hashes);

std::shared_ptr<Dataset> open_arrays(const FieldSource& fields);
std::shared_ptr<Dataset> open_folder(const FieldSource& fields);
std::shared_ptr<Dataset> open_table(const FieldSource& fields);

}  // namespace lehr::data
