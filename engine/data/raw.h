// Raw inputs from files, for an artefact's forward: the kind of a file is told by its content. No
// recipe is needed: sizes, columns and classes come from the artefact.
#pragma once

#include <string>
#include <vector>

#include "engine/data/dataset.h"

namespace lehr::data {

enum class RawKind { kArray, kPicture, kFolder, kTable };  // IDX or npy; JPEG or PNG; ...; CSV text
// Throws Error{kData} when there is no such file.
RawKind raw_kind(const std::string& path);

// What pictures in files are scaled to (arrays must have this size already). Zeros: as stored.
struct RawImageShape {
  int64_t channels = 0, height = 0, width = 0;
  int64_t resize = 0;  // DataInfo::resize; 0: height and width are scaled to directly
};
RawImageShape raw_image_shape(const DataInfo& info);

// Images of all `paths` in order: IDX or npy arrays, JPEG or PNG files, folders of them. Folders
// with a sub-folder per class also give targets when `classes` are given. Throws Error{kData}:
// another size or channel count than `shape`, sizes that differ between files, labels instead of
// images.
RawBatch read_raw_images(const std::vector<std::string>& paths, const RawImageShape& shape = {},
                         const StringList& classes = {});

// Columns by name, in the given order; with `target` the targets too (classes as numbers when
// `classes` is not empty, else float32 [N, 1]).
RawBatch read_raw_table(const std::string& path, const StringList& number_columns,
                        const StringList& string_columns, const std::string& target = "",
                        const StringList& classes = {}, const std::string& delimiter = ",");

// Targets of images from an IDX or npy file: int64 [N] (checked against `classes` when given) or
// float32 [N, K].
at::Tensor read_targets(const std::string& path, const StringList& classes = {});

}  // namespace lehr::data
