// Checksums: XXH3-128 for tensors and files (6 GB/s on one core), SHA-256 for manifests.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lehr {

std::string xxh3_128(const void* data, size_t bytes);  // 32 hex digits
std::string sha256(std::string_view text);             // 64 hex digits
// xxh3_128 of data that comes in pieces.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;
  void update(const void* data, size_t bytes);
  std::string digest() const;

 private:
  void* state_;
};
// Streamed over a file; throws Error{kData} when it cannot be read.
std::string xxh3_128_of_file(const std::string& path);
std::string sha256_of_file(const std::string& path);

}  // namespace lehr
