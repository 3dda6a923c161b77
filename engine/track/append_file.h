// A file that only grows, by whole pieces: a piece is one write to the kernel, without a buffer of
// ours that a kill could empty. Not synced: what a power cut takes from it is only a report.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lehr::track {

class AppendFile {
 public:
  // Opens for appending, created when absent; `fresh`: fails if it exists. Throws Error{kData}.
  AppendFile(std::string path, bool fresh);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  // All of it, or nothing and an Error{kData}.
  void append(std::string_view piece) { write_at(size_, piece); }
  // Replaces what follows `offset`; `piece` is not shorter than that.
  void replace_from(uint64_t offset, std::string_view piece) { write_at(offset, piece); }
  uint64_t size() const { return size_; }

 private:
  void write_at(uint64_t offset, std::string_view piece);

  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace lehr::track
