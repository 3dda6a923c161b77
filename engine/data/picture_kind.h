// What a picture file is by its first bytes, whatever its name says, and what else lies where
// pictures are wanted: messages then name the cause instead of the symptom.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lehr::data {

struct PictureKind {
  const char* name = "";  // "a WebP picture"; "" when the bytes say nothing
  const char* hint = "";  // what to do with it
  bool is_read = false;   // JPEG and PNG
};

constexpr size_t kKindBytes = 512;  // are enough
PictureKind kind_of_bytes(const uint8_t* data, size_t size);
// Throws Error{kData} when the file cannot be read.
PictureKind kind_of_file(const std::string& path);

}  // namespace lehr::data
