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
#include <chrono>
#include <cstring>
#include <thread>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/base/pulse.h"
#include "engine/checkpoint/manifest.h"
#include "engine/checkpoint/names.h"

namespace lehr::checkpoint {
namespace {

constexpr uint64_t kManifestLimit = 1 << 28;

std::string shard_file(const std::string& shard, const Part& part) {
  if (shard == "weights") return "model.safetensors";
  if (part.count == 1) return shard + ".safetensors";
  return fmt::format("{}-{:05d}-of-{:05d}.safetensors", shard, part.index, part.count);
}

std::string part_name(int64_t index) { return fmt::format("{}{:05d}", kPartMark, index); }
constexpr const char* kFailedMark = ".failed";  // part-00001.failed: why there is none

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
                fmt::format("a checkpoint of {} kB does not fit: {} kB are free", bytes >> 10,
                            free_bytes >> 10),
                folder, "free some space, or lower checkpoint.keep_latest_k");
}

void write_shard(const std::string& folder, const std::string& shard, const Content& content,
                 Manifest* manifest) {
  const auto& unordered = content.shards.at(shard);
  std::string name = shard_file(shard, content.part);
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
    SliceRecord slice{
        tensor.name,  tensor.dtype, tensor.shape, std::vector<int64_t>(tensor.shape.size(), 0),
        tensor.shape, name,         sum};
    if (const auto rows = content.rows.find(tensor.name);
        rows != content.rows.end() && !tensor.shape.empty())
      slice.shape[0] = rows->second.of, slice.offset[0] = rows->second.first;
    manifest->slices.push_back(std::move(slice));
    writer.write(tensor.data, tensor.bytes);
  }
  writer.commit();
}

void write_text(const std::string& folder, const std::string& name, const std::string& text) {
  FileWriter writer(join_path(folder, name), text.size());
  writer.write(text.data(), text.size());
  writer.commit();
}

// What a part's process has left: its records, or its Error.
std::optional<Manifest> read_part(const std::string& folder, int64_t index) {
  const std::string path = join_path(folder, part_name(index));
  if (file_exists(path + kFailedMark))
    throw Error(Code::kCheckpoint,
                fmt::format("part {}: {}", index, read_file(path + kFailedMark)));
  if (!file_exists(path)) return std::nullopt;
  return parse_manifest(read_file(path, kManifestLimit), path, /*all_rows=*/false);
}

// the processes share the file system and nothing else here, so that no call of theirs is needed
// while they train
void add_other_parts(const std::string& folder, const Part& own, const std::atomic<bool>* give_up,
                     Manifest* manifest) {
  const int64_t count = own.count;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(own.patience_s);
  for (int64_t index = 1; index < count; ++index) {
    auto pause = std::chrono::milliseconds(1);
    std::optional<Manifest> part;
    while (!(part = read_part(folder, index))) {
      if ((give_up && *give_up) || std::chrono::steady_clock::now() > end)
        throw Error(Code::kCheckpoint, fmt::format("part {} has not been written", index));
      std::this_thread::sleep_for(pause);
      get_on();  // this wait has a limit of its own
      pause = std::min(2 * pause, std::chrono::milliseconds(50));
    }
    manifest->files.insert(manifest->files.end(), part->files.begin(), part->files.end());
    manifest->slices.insert(manifest->slices.end(), part->slices.begin(), part->slices.end());
  }
  for (int64_t index = 1; index < count; ++index) remove_tree(join_path(folder, part_name(index)));
}

Manifest write_shards(const std::string& folder, const Content& content) {
  Manifest manifest;
  manifest.step = content.step;
  manifest.samples = content.samples;
  manifest.facts = content.facts;
  for (const auto& [shard, tensors] : content.shards)
    write_shard(folder, shard, content, &manifest);
  return manifest;
}

// FORMAT.md, "Writing", step by step
void write_files(const std::string& folder, const Content& content,
                 const std::atomic<bool>* give_up) {
  Manifest manifest = write_shards(folder, content);
  for (const auto& [name, text] : content.texts) {
    manifest.files.push_back({name, "", text.size(), 0, xxh3_128(text.data(), text.size())});
    write_text(folder, name, text);
  }
  add_other_parts(folder, content.part, give_up, &manifest);
  std::string manifest_path = join_path(folder, kManifestName);
  const std::string text = to_text(manifest);
  parse_manifest(text, manifest_path);  // all rows are there
  write_text(folder, std::string(kManifestName) + ".tmp", text);
  rename_durably(manifest_path + ".tmp", manifest_path);  // and fsync of the folder
}

// A part that is not the first.
void write_part(const Content& content) {
  const std::string path = join_path(content.part.folder, part_name(content.part.index));
  try {
    write_text(content.part.folder, part_name(content.part.index) + ".tmp",
               to_text(write_shards(content.part.folder, content)));
    rename_durably(path + ".tmp", path);
  } catch (const std::exception& e) {
    abandon(content.part, e.what());
    throw;
  }
}

// a failure to clean up must not hide the failure that made it necessary; claim_newest tries again
void remove_quietly(const std::string& path) {
  try {
    remove_tree(path);
  } catch (const Error&) {
  }
}

std::string write(const std::string& folder, const Content& content,
                  const std::atomic<bool>* give_up) {
  std::string path = join_path(folder, step_name(content.step));
  if (content.part.index > 0) return write_part(content), path;
  std::string temporary =
      content.part.count > 1 ? content.part.folder : path + kTemporaryMark + unique_id();
  std::string current = temporary;
  try {
    make_folders(folder);
    if (file_exists(path))
      throw Error(Code::kCheckpoint, "is there already and is not overwritten", path,
                  "continue from it, or move it away");
    uint64_t bytes = 1 << 16;
    for (const auto& [shard, tensors] : content.shards)
      for (const auto& tensor : tensors) bytes += tensor.bytes;
    require_space(folder, bytes);
    make_folders(temporary);
    write_files(temporary, content, give_up);
    if (content.approval) content.approval();
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

bool holds_any(const std::string& file, const std::vector<SliceRecord>& slices,
               const std::map<std::string, Rows>& wanted) {
  return std::any_of(slices.begin(), slices.end(), [&](const SliceRecord& slice) {
    if (slice.file != file) return false;
    const auto rows = wanted.find(slice.name);
    if (rows == wanted.end() || slice.shape.empty()) return true;
    const int64_t first = slice.offset[0], after = first + slice.extent[0];
    return first < rows->second.first + rows->second.count && rows->second.first < after;
  });
}

std::map<std::string, Rows> rows_of(const std::string& file,
                                    const std::vector<SliceRecord>& slices) {
  std::map<std::string, Rows> rows;
  for (const auto& slice : slices)
    if (slice.file == file && !slice.is_whole())
      rows[slice.name] = {slice.offset[0], slice.extent[0], slice.shape[0]};
  return rows;
}

}  // namespace

void abandon(const Part& part, const std::string& why) {
  if (part.count == 1) return;
  try {
    if (part.index == 0)
      remove_tree(part.folder);
    else
      write_file_durably(join_path(part.folder, part_name(part.index)) + kFailedMark, why);
  } catch (const Error&) {  // the folder is gone, or nothing can be written: this rank says why
  }
}

std::string begin_parts(const std::string& folder, int64_t step) {
  const std::string path = join_path(folder, step_name(step) + kTemporaryMark + unique_id());
  make_folders(path);
  return path;
}

std::string save(const std::string& folder, const Content& content,
                 const std::atomic<bool>* give_up) {
  try {
    return write(folder, content, give_up);
  } catch (const Error& e) {
    std::string hint = e.hint().empty() ? "" : e.hint() + "; ";
    throw Error(
        Code::kCheckpoint,
        fmt::format("the checkpoint of step {} was not saved: {}", content.step, e.message()),
        e.where(), hint + "older checkpoints are untouched");
  }
}

void restate(const std::string& path, const std::string& facts, const FolderLock&) {
  const std::string manifest_path = join_path(path, kManifestName);
  Manifest manifest = parse_manifest(read_file(manifest_path, kManifestLimit), manifest_path);
  manifest.facts = facts;
  write_file_durably(manifest_path, to_text(manifest));
}

Loaded load(const std::string& path, const std::map<std::string, Rows>& wanted) {
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
      if (file.name == shard_file(file.shard, {}))
        loaded.shards[file.shard] = load_shard(file_path, file, manifest.slices);
      else if (wanted.empty() || holds_any(file.name, manifest.slices, wanted))
        loaded.shared[file.shard].push_back(
            {load_shard(file_path, file, manifest.slices), rows_of(file.name, manifest.slices)});
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
