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

// The same bytes one piece after the other, for files beyond memory.
class ByteStream {
 public:
  // Throws as read_bytes does.
  explicit ByteStream(const std::string& path, const std::string& hint = "");
  ~ByteStream();
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;
  // Up to `size` bytes; fewer only at the end. Throws as read_bytes does.
  size_t read(char* out, size_t size);
  // Passes over as many; a gzip file is inflated all the same.
  void skip(uint64_t bytes);

 private:
  size_t read_stored(char* out, size_t size);
  struct Gzip;
  std::string path_;
  int fd_ = -1;
  uint64_t stored_ = 0, size_ = 0;  // bytes of the file that were read, and its size
  std::unique_ptr<Gzip> gzip_;
};

// "FILE at byte N: what", for content that does not add up.
[[noreturn]] void bad_byte(const std::string& path, uint64_t byte, const std::string& what,
                           const std::string& hint = "");

}  // namespace lehr::data
