// A file's bytes, whole, in memory that is allocated once: inflated when the content is gzip,
// whatever the name says. Whole files because every reader here checks sizes and checksums before
// it believes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace lehr::data {

struct Bytes {
  std::string path;
  std::shared_ptr<uint8_t[]> memory;
  size_t size = 0;
  std::string hash;  // XXH3-128 of the file as stored

  const uint8_t* begin() const { return memory.get(); }
  const uint8_t* end() const { return memory.get() + size; }
};

// Throws Error{kData}: missing (with `hint`), unreadable, a gzip stream that is cut or does not
// verify (with the byte of the file).
Bytes read_bytes(const std::string& path, const std::string& hint = "");

// "FILE at byte N: what", for content that does not add up.
[[noreturn]] void bad_byte(const std::string& path, uint64_t byte, const std::string& what,
                           const std::string& hint = "");

}  // namespace lehr::data
