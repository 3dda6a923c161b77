// Raw inputs from files, for an artefact's forward: the kind of a file is told by its content. How
// they are read, sizes, columns and classes come from the artefact.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/data/picture.h"

namespace lehr::data {

// Images in files, in the order given: IDX or npy arrays, JPEG or PNG files, folders of them.
// Pictures are decoded when they are asked for, so that they need not fit into memory.
class RawImages {
 public:
  // Arrays must have the size of `view` already. With `classes`, a folder has a sub-folder per
  // class, which gives targets; without, its pictures lie at any depth. Throws Error{kData}:
  // another size or channel count, labels instead of images, a class that is not known.
  RawImages(const std::vector<std::string>& paths, const View& view,
            const StringList& classes = {});
  int64_t size() const { return first_.back(); }
  bool holds_pictures() const { return holds_pictures_; }
  const std::string& file(int64_t image) const { return sources_[source_of(image)].path; }
  const at::Tensor& targets() const { return targets_; }          // int64 [N], or undefined
  const StringList& passed_over() const { return passed_over_; }  // see PictureListing
  // uint8 [N, H, W] or [N, H, W, C] of images [begin, end). Throws BadPicture; with `leave_out`,
  // calls it instead, and N is smaller.
  using LeaveOut = std::function<void(int64_t image, const BadPicture& why)>;
  at::Tensor read(int64_t begin, int64_t end, const LeaveOut& leave_out = {}) const;

 private:
  struct Source {
    std::string path;
    at::Tensor images;  // of an array: uint8 [N, H, W, C]; undefined for a picture
  };
  size_t source_of(int64_t image) const;
  void add(Source source, int64_t images);

  View view_;
  std::vector<Source> sources_;
  std::vector<int64_t> first_{0};  // image of each source, and of the one that would come next
  bool holds_pictures_ = false;
  at::Tensor targets_;
  StringList passed_over_;
};

// How an artefact reads a table: columns by name, in this order.
struct RawColumns {
  StringList numbers, strings;
  std::string target;  // "": none is read
  StringList classes;  // of the target; empty: it is a number
  std::string delimiter = ",";
  StringList missing;  // data.missing_values
};
// A CSV file, which need not fit into memory.
class RawTable {
 public:
  // Throws as CsvReader and TableReader do.
  RawTable(const std::string& path, const RawColumns& columns);
  ~RawTable();
  // The next rows, `most` at most; none at the end. With a target, its classes as numbers int64
  // [N], or float32 [N, 1].
  RawBatch read(int64_t most);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Targets of images from an IDX or npy file: int64 [N] (checked against `classes` when given) or
// float32 [N, K].
at::Tensor read_targets(const std::string& path, const StringList& classes = {});

}  // namespace lehr::data
