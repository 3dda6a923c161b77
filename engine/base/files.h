// Files that are there after a power cut, or not at all. Every call checks every return value,
// loops on short writes and EINTR, and throws Error{kData} with path and errno text. No buffered
// streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lehr {

// Whole file into memory. Throws when missing, a folder, unreadable or above `limit_bytes`.
std::string read_file(const std::string& path, uint64_t limit_bytes = UINT64_MAX);
// temp name + write + fsync + rename + fsync of the folder: after return the content is durable.
void write_file_durably(const std::string& path, std::string_view content);
void sync_folder(const std::string& path);  // fsync of a directory
// rename + fsync of the folder of `to`; both must be in one folder to be durable.
void rename_durably(const std::string& from, const std::string& to);
std::string unique_id();  // 16 random hex digits, for names that nobody else takes
bool file_exists(const std::string& path);
void make_folders(const std::string& path);     // mkdir -p; durable, like a file's name
bool make_new_folder(const std::string& path);  // the same; false: it was there already
void remove_tree(const std::string& path);      // rm -rf, absent is fine
std::vector<std::string> list_folder(const std::string& path);      // names, sorted; {} when absent
std::string join_path(const std::string& a, const std::string& b);  // b when b is absolute

// The name of something half-written, a file or a folder, until it has its own. Removed when the
// object goes before that, and by remove_temporaries().
class Temporary {
 public:
  explicit Temporary(std::string path);
  ~Temporary();
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  const std::string& path() const { return path_; }
  void rename_durably(const std::string& to);

 private:
  void forget();
  std::string path_;
};
// All that live, of a process that is about to end without unwinding.
void remove_temporaries();

// A file being written: create (fails if it exists), append, then commit(). An uncommitted one is
// closed and left behind for its owner to remove with the folder it is in.
class FileWriter {
 public:
  explicit FileWriter(const std::string& path, uint64_t reserve_bytes = 0);  // posix_fallocate
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  void write(const void* data, size_t bytes);
  void write_at(uint64_t offset, const void* data, size_t bytes);  // over what was written before
  void commit();  // fsync, close; never retried after a failure
  uint64_t size() const { return size_; }

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0, reserved_ = 0;
};

// flock on FOLDER/.lock for the life of the object. Throws Error{kUsage} naming the holder's pid
// and host when another process holds it; the lock dies with its process, so it is never stale.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  // Takes away the lock's file and then the folder, where nothing else is in it.
  void remove_empty_folder();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  std::string folder_;
  int fd_ = -1;
};

}  // namespace lehr
