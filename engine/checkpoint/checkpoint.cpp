// One checkpoint: written in the order that survives a power cut, read with every byte checked.
// Reading for the check goes through pread, so that a bad disk block is an error and no SIGBUS.
#include "engine/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/checkpoint/manifest.h"
#include "engine/checkpoint/names.h"

namespace lehr::checkpoint {
namespace {

constexpr uint64_t kManifestLimit = 1 << 28;

std::string shard_file(const std::string& shard) {
  return (shard == "weights" ? "model" : shard) + ".safetensors";
}

void require_space(const std::string& folder, uint64_t bytes) {
  struct statvfs info {};
  int result;
  do result = ::statvfs(folder.c_str(), &info);
  while (result != 0 && errno == EINTR);
  if (result != 0)
    throw Error(Code::kCheckpoint,
                fmt::format("cannot ask for free space: {}", std::strerror(errno)), folder);
  uint64_t free_bytes = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (free_bytes < bytes)
    throw Error(Code::kCheckpoint,
                fmt::format("a checkpoint of {} MB does not fit: {} MB are free", bytes >> 20,
                            free_bytes >> 20),
                folder, "free some space, or lower checkpoint.keep_latest_k");
}

void write_shard(const std::string& folder, const std::string& shard,
                 const std::vector<TensorView>& unordered, Manifest* manifest) {
  std::string name = shard_file(shard);
  auto tensors = in_file_order(unordered);
  std::string header = safetensors_header(tensors);
  uint64_t total = header.size();
  for (const auto& tensor : tensors) total += tensor.bytes;
  manifest->files.push_back(
      {name, shard, total, header.size(), xxh3_128(header.data(), header.size())});

  FileWriter writer(join_path(folder, name), total);
  writer.write(header.data(), header.size());
  for (const auto& tensor : tensors) {
    // the sum is of memory, before the disk had a chance to change anything
    std::string sum = xxh3_128(tensor.data, tensor.bytes);
    std::vector<int64_t> zeros(tensor.shape.size(), 0);
    manifest->slices.push_back(
        {tensor.name, tensor.dtype, tensor.shape, zeros, tensor.shape, name, sum});
    writer.write(tensor.data, tensor.bytes);
  }
  writer.commit();
}

void write_text(const std::string& folder, const std::string& name, const std::string& text) {
  FileWriter writer(join_path(folder, name), text.size());
  writer.write(text.data(), text.size());
  writer.commit();
}

// FORMAT.md, "Writing", step by step
void write_files(const std::string& folder, const Content& content) {
  Manifest manifest;
  manifest.step = content.step;
  manifest.samples = content.samples;
  manifest.facts = content.facts;
  for (const auto& [shard, tensors] : content.shards)
    write_shard(folder, shard, tensors, &manifest);
  for (const auto& [name, text] : content.texts) {
    manifest.files.push_back({name, "", text.size(), 0, xxh3_128(text.data(), text.size())});
    write_text(folder, name, text);
  }
  std::string manifest_path = join_path(folder, kManifestName);
  write_text(folder, std::string(kManifestName) + ".tmp", to_text(manifest));
  rename_durably(manifest_path + ".tmp", manifest_path);  // and fsync of the folder
}

// a failure to clean up must not hide the failure that made it necessary; load_newest tries again
void remove_quietly(const std::string& path) {
  try {
    remove_tree(path);
  } catch (const Error&) {
  }
}

std::string write(const std::string& folder, const Content& content) {
  make_folders(folder);
  std::string path = join_path(folder, step_name(content.step));
  if (file_exists(path))
    throw Error(Code::kCheckpoint, "is there already and is not overwritten", path,
                "continue from it, or move it away");
  uint64_t bytes = 1 << 16;
  for (const auto& [shard, tensors] : content.shards)
    for (const auto& tensor : tensors) bytes += tensor.bytes;
  require_space(folder, bytes);

  std::string temporary = path + kTemporaryMark + unique_id();
  std::string current = temporary;
  try {
    make_folders(temporary);
    write_files(temporary, content);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw Error(Code::kCheckpoint,
                  fmt::format("cannot rename to {}: {}", path, std::strerror(errno)), temporary);
    current = path;
    sync_folder(folder);
  } catch (...) {
    // whole but perhaps not durable: unpublish it the way that deletion does
    if (current == path) {
      std::string trash =
          join_path(folder, kTrashMark + step_name(content.step) + "-" + unique_id());
      if (::rename(path.c_str(), trash.c_str()) == 0) current = trash;
    }
    remove_quietly(current);
    throw;
  }
  return path;
}

// checksums of ranges of one file
class RangeReader {
 public:
  explicit RangeReader(const std::string& path) : path_(path), buffer_(1 << 20) {
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd_ < 0) fail("cannot open");
  }
  ~RangeReader() { ::close(fd_); }
  RangeReader(const RangeReader&) = delete;
  RangeReader& operator=(const RangeReader&) = delete;

  std::string sum(uint64_t begin, uint64_t bytes) {
    Xxh3 hash;
    while (bytes > 0) {
      ssize_t n = ::pread(fd_, buffer_.data(), std::min<uint64_t>(bytes, buffer_.size()),
                          static_cast<off_t>(begin));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("cannot read");
      if (n == 0) throw Error(Code::kCheckpoint, "damaged: it ends early", path_);
      hash.update(buffer_.data(), n);
      begin += n, bytes -= n;
    }
    return hash.digest();
  }

 private:
  [[noreturn]] void fail(const char* what) {
    throw Error(Code::kCheckpoint, fmt::format("{}: {}", what, std::strerror(errno)), path_);
  }
  std::string path_;
  std::vector<char> buffer_;
  int fd_ = -1;
};

void check_size(const std::string& path, const FileRecord& file) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0)
    throw Error(
        Code::kCheckpoint,
        errno == ENOENT ? "is missing" : fmt::format("cannot look at it: {}", std::strerror(errno)),
        path);
  if (!S_ISREG(info.st_mode)) throw Error(Code::kCheckpoint, "damaged: it is no plain file", path);
  if (static_cast<uint64_t>(info.st_size) != file.bytes)
    throw Error(
        Code::kCheckpoint,
        fmt::format("damaged: it has {} bytes and should have {}", info.st_size, file.bytes), path);
}

std::shared_ptr<SafetensorsFile> load_shard(const std::string& path, const FileRecord& file,
                                            const std::vector<SliceRecord>& slices) {
  RangeReader reader(path);
  if (reader.sum(0, file.header_bytes) != file.xxh3)
    throw Error(Code::kCheckpoint, "damaged: the checksum of its header does not match", path);
  auto shard = std::make_shared<SafetensorsFile>(path);
  size_t found = 0;
  uint64_t begin = file.header_bytes;
  for (const auto& tensor : shard->tensors()) {
    auto slice = std::find_if(slices.begin(), slices.end(), [&](const SliceRecord& s) {
      return s.file == file.name && s.name == tensor.name;
    });
    if (slice == slices.end() || slice->dtype != tensor.dtype || slice->extent != tensor.shape)
      throw Error(Code::kCheckpoint, "tensor '" + tensor.name + "' is not as the manifest says",
                  path);
    if (reader.sum(begin, tensor.bytes) != slice->xxh3)
      throw Error(Code::kCheckpoint,
                  "damaged: the checksum of tensor '" + tensor.name + "' does not match", path);
    begin += tensor.bytes;
    ++found;
  }
  size_t named = std::count_if(slices.begin(), slices.end(),
                               [&](const SliceRecord& s) { return s.file == file.name; });
  if (found != named) throw Error(Code::kCheckpoint, "lacks tensors that the manifest names", path);
  return shard;
}

}  // namespace

std::string save(const std::string& folder, const Content& content) {
  try {
    return write(folder, content);
  } catch (const Error& e) {
    std::string hint = e.hint().empty() ? "" : e.hint() + "; ";
    throw Error(
        Code::kCheckpoint,
        fmt::format("the checkpoint of step {} was not saved: {}", content.step, e.message()),
        e.where(), hint + "older checkpoints are untouched");
  }
}

Loaded load(const std::string& path) {
  std::string manifest_path = join_path(path, kManifestName);
  Manifest manifest;
  try {
    manifest = parse_manifest(read_file(manifest_path, kManifestLimit), manifest_path);
  } catch (const Error& e) {
    throw Error(Code::kCheckpoint, e.message(), e.where(), e.hint());
  }
  Loaded loaded;
  loaded.step = manifest.step;
  loaded.samples = manifest.samples;
  loaded.path = path;
  loaded.facts = manifest.facts;
  for (const auto& file : manifest.files) check_size(join_path(path, file.name), file);
  for (const auto& file : manifest.files) {
    std::string file_path = join_path(path, file.name);
    if (!file.shard.empty()) {
      loaded.shards[file.shard] = load_shard(file_path, file, manifest.slices);
      continue;
    }
    std::string text = read_file(file_path, file.bytes);
    if (xxh3_128(text.data(), text.size()) != file.xxh3)
      throw Error(Code::kCheckpoint, "damaged: its checksum does not match", file_path);
    loaded.texts[file.name] = std::move(text);
  }
  return loaded;
}

}  // namespace lehr::checkpoint
