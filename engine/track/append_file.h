// A file that only grows, by whole pieces: a piece is one write to the kernel, without a buffer of
// ours that a kill could empty. Not synced: what a power cut takes from it is only a report.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lehr::track {

// A power cut damages what was not on the disk yet: no more than this before a file's end is looked
// through for it, so that a long file opens as fast as a short one.
constexpr uint64_t kSearched = 1 << 20;

class AppendFile {
 public:
  // Opens for appending, created when absent; `fresh`: fails if it exists. Throws Error{kData}, as
  // all calls do.
  AppendFile(std::string path, bool fresh);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  // All of it, or nothing and an Error.
  void append(std::string_view piece) { write_at(size_, piece); }
  // Replaces what follows `offset` by `piece`, which is not shorter, or changes nothing.
  void replace_from(uint64_t offset, std::string_view piece);
  std::string read(uint64_t offset, uint64_t bytes) const;
  void cut(uint64_t size);  // and syncs
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  void write_at(uint64_t offset, std::string_view piece);

  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace lehr::track
