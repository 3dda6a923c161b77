// Arrays in files: IDX (the format of MNIST) and .npy, told apart by content. Sizes are checked
// against the header before anything is read.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/fields.h"
#include "engine/data/bytes.h"

namespace lehr::data {

struct Array {
  Bytes file;
  size_t offset = 0;  // of the first element
  std::vector<int64_t> shape;
  char kind = 'u';  // u unsigned, i signed, f float
  int width = 1;    // bytes per element, little-endian

  const uint8_t* data() const { return file.begin() + offset; }
  int64_t rows() const { return shape.empty() ? 0 : shape[0]; }
  int64_t count() const;
};

bool looks_like_idx(const Bytes& file);
bool looks_like_npy(const Bytes& file);
// Throws Error{kData} naming file and byte: neither format, header cut or senseless, an element
// type that is not read, shape and size that differ.
Array read_array(const std::string& path, const std::string& hint = "");
Array as_array(Bytes file);

// Checks uint8 [N, H, W] or [N, H, W, C], none of H, W, C zero.
void check_images(const Array& images);
// int64 [N] for integers, float32 [N, K] for floats. With `classes`, an integer outside of them is
// an error that names its byte.
at::Tensor targets_of(const Array& labels, size_t classes);

}  // namespace lehr::data
