// Plain system calls, each checked. What cannot be done is said with the path, the errno text and,
// where the user can act, what to do.
#include "engine/base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <set>

#include "engine/base/error.h"
#include "engine/base/pulse.h"

namespace lehr {
namespace {

constexpr size_t kPiece = 64 << 20;  // of a write: a slow disk shows that it gets on

[[noreturn]] void fail(const std::string& action, const std::string& path, int error,
                       const std::string& extra = "") {
  std::string hint;
  if (error == ENOSPC || error == EDQUOT) hint = "free some space there, or write elsewhere";
  if (error == EACCES || error == EPERM || error == EROFS) hint = "check the permissions there";
  if (error == EMFILE || error == ENFILE) hint = "raise the limit of open files (ulimit -n)";
  throw Error(Code::kData, fmt::format("cannot {}: {}{}", action, std::strerror(error), extra),
              path, hint);
}

int open_retrying(const std::string& path, int flags, mode_t mode = 0) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

// after an fsync an interrupted close has lost nothing, and the descriptor is gone either way
void close_checked(int fd, const std::string& path) {
  if (::close(fd) != 0 && errno != EINTR) fail("close", path, errno);
}

std::string parent_of(const std::string& path) {
  size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path.empty() ? "." : "/";
  size_t slash = path.find_last_of('/', end);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::string unique_id() {
  unsigned char bytes[8];
  ssize_t n;
  do n = ::getrandom(bytes, sizeof bytes, 0);
  while (n < 0 && errno == EINTR);
  if (n != sizeof bytes) fail("get random bytes", "getrandom", n < 0 ? errno : EIO);
  std::string text;
  for (unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::string read_file(const std::string& path, uint64_t limit_bytes) {
  int fd = open_retrying(path, O_RDONLY | O_NONBLOCK);  // a FIFO must not hang us
  if (fd < 0) fail("open", path, errno);
  struct Close {
    int fd;
    ~Close() { ::close(fd); }
  } closer{fd};
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail("look at", path, errno);
  if (S_ISDIR(info.st_mode)) fail("read", path, EISDIR);
  std::string content;
  if (S_ISREG(info.st_mode)) content.reserve(std::min<uint64_t>(info.st_size + 1, limit_bytes));
  std::vector<char> buffer(1 << 16);
  for (;;) {
    ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("read", path, errno, fmt::format(" at byte {}", content.size()));
    if (n == 0) return content;
    if (content.size() + n > limit_bytes)
      throw Error(Code::kData, fmt::format("is larger than {} bytes", limit_bytes), path);
    content.append(buffer.data(), n);
    get_on();
  }
}

// never destroyed: a thread that is left behind may still write
static std::mutex& temporaries_mutex = *new std::mutex;
static std::set<std::string>& temporaries = *new std::set<std::string>;

Temporary::Temporary(std::string path) : path_(std::move(path)) {
  const std::lock_guard lock(temporaries_mutex);
  temporaries.insert(path_);
}

Temporary::~Temporary() {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  forget();
}

void Temporary::forget() {
  const std::lock_guard lock(temporaries_mutex);
  temporaries.erase(path_);
  path_.clear();
}

// Takes the place of a plain file or of nothing (a folder of an empty one): devices, pipes and
// links are no one's to replace.
static void rename_over(const std::string& from, const std::string& to) {
  struct stat info {};
  if (::lstat(to.c_str(), &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
    throw Error(Code::kData, "is there already, and no plain file", to, "name another one");
  if (::rename(from.c_str(), to.c_str()) != 0) fail("rename to " + to, from, errno);
}

void Temporary::rename_durably(const std::string& to) {
  rename_over(path_, to);
  forget();
  sync_folder(parent_of(to));
}

void remove_temporaries() {
  const std::lock_guard lock(temporaries_mutex);
  std::error_code ignored;
  for (const auto& path : temporaries) std::filesystem::remove_all(path, ignored);
}

void write_file_durably(const std::string& path, std::string_view content) {
  Temporary temporary(path + ".tmp-" + unique_id());
  FileWriter writer(temporary.path());
  writer.write(content.data(), content.size());
  writer.commit();
  temporary.rename_durably(path);
}

void rename_durably(const std::string& from, const std::string& to) {
  rename_over(from, to);
  sync_folder(parent_of(to));
}

void sync_folder(const std::string& path) {
  int fd = open_retrying(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) fail("open", path, errno);
  if (::fsync(fd) != 0) {
    int error = errno;
    ::close(fd);
    fail("fsync", path, error);
  }
  close_checked(fd, path);
}

bool file_exists(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  fail("look at", path, errno);
}

void make_folders(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) != 0) {
    if (errno == ENOENT && parent_of(path) != path) {
      make_folders(parent_of(path));
      if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) fail("create", path, errno);
    } else if (errno == EEXIST) {
      struct stat info {};
      if (::stat(path.c_str(), &info) != 0) fail("look at", path, errno);
      if (!S_ISDIR(info.st_mode)) fail("create", path, EEXIST, " (it is not a folder)");
      return;
    } else {
      fail("create", path, errno);
    }
  }
  sync_folder(parent_of(path));
}

bool make_new_folder(const std::string& path) {
  if (parent_of(path) != path) make_folders(parent_of(path));
  if (::mkdir(path.c_str(), 0777) != 0) {
    if (errno == EEXIST) return false;
    fail("create", path, errno);
  }
  sync_folder(parent_of(path));
  return true;
}

void remove_tree(const std::string& path) {
  std::error_code error;  // remove_all does not follow symbolic links
  std::filesystem::remove_all(path, error);
  if (error) fail("remove", path, error.value());
}

std::vector<std::string> list_folder(const std::string& path) {
  DIR* folder;
  do folder = ::opendir(path.c_str());
  while (!folder && errno == EINTR);
  if (!folder) {
    if (errno == ENOENT) return {};
    fail("list", path, errno);
  }
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    dirent* entry = ::readdir(folder);
    if (!entry) break;
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  int error = errno;
  ::closedir(folder);
  if (error) fail("list", path, error);
  std::sort(names.begin(), names.end());
  return names;
}

std::string join_path(const std::string& a, const std::string& b) {
  if (a.empty() || (!b.empty() && b[0] == '/')) return b;
  if (b.empty()) return a;
  return a.back() == '/' ? a + b : a + "/" + b;
}

FileWriter::FileWriter(const std::string& path, uint64_t reserve_bytes)
    : path_(path), reserved_(reserve_bytes) {
  fd_ = open_retrying(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (fd_ < 0) fail("create", path, errno);
  if (reserve_bytes == 0) return;
  int error;  // posix_fallocate returns it
  do error = ::posix_fallocate(fd_, 0, static_cast<off_t>(reserve_bytes));
  while (error == EINTR);
  if (error) {
    ::close(fd_);
    fail(fmt::format("reserve {} bytes for", reserve_bytes), path, error);
  }
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void FileWriter::write(const void* data, size_t bytes) { write_at(size_, data, bytes); }

void FileWriter::write_at(uint64_t offset, const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    ssize_t n = ::pwrite(fd_, next, std::min<size_t>(bytes, kPiece), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("write", path_, n < 0 ? errno : EIO, fmt::format(" at byte {}", offset));
    next += n, bytes -= n, offset += n;
    size_ = std::max(size_, offset);
    get_on();
  }
}

void FileWriter::commit() {
  int fd = fd_;
  fd_ = -1;  // whatever happens now, this file is not written again
  int error = 0;
  if (size_ < reserved_ && ::ftruncate(fd, static_cast<off_t>(size_)) != 0) error = errno;
  // a failed fsync has marked the lost pages clean: asking again would succeed and lie
  if (!error && ::fsync(fd) != 0) error = errno;
  if (error) {
    ::close(fd);
    fail("fsync", path_, error);
  }
  close_checked(fd, path_);
}

FolderLock::FolderLock(const std::string& folder) : folder_(folder) {
  std::string path = join_path(folder, ".lock");
  for (;;) {
    fd_ = open_retrying(path, O_RDWR | O_CREAT, 0666);
    if (fd_ < 0) fail("open", path, errno);
    int result;
    do result = ::flock(fd_, LOCK_EX | LOCK_NB);
    while (result != 0 && errno == EINTR);
    int error = result == 0 ? 0 : errno;
    if (error == EWOULDBLOCK) {
      char text[128] = {};  // "pid host"
      ssize_t n = ::pread(fd_, text, sizeof text - 1, 0);
      ::close(fd_);
      std::string holder =
          n > 0 ? std::string(text).substr(0, std::strcspn(text, "\n")) : "unknown";
      if (size_t blank = holder.find(' '); blank != std::string::npos)
        holder = holder.substr(0, blank) + " on " + holder.substr(blank + 1);
      throw Error(Code::kUsage, "is in use by another process (pid " + holder + ")", folder,
                  "wait for it, stop it, or choose another folder");
    }
    // the holder before may have taken the file away with its folder
    struct stat held {
    }, there{};
    if (!error && ::fstat(fd_, &held) != 0) error = errno;
    if (!error && (::stat(path.c_str(), &there) != 0 || there.st_ino != held.st_ino)) {
      ::close(fd_);
      make_folders(folder);
      continue;
    }
    char host[65] = {};
    ::gethostname(host, sizeof host - 1);
    const std::string text = fmt::format("{} {}\n", ::getpid(), host);
    if (!error && (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, text.data(), text.size(), 0) < 0))
      error = errno;
    if (!error) return;
    ::close(fd_);
    if (error == ENOSYS || error == EOPNOTSUPP || error == ENOLCK)
      throw Error(Code::kData,
                  fmt::format("this file system has no flock: {}", std::strerror(error)), path,
                  "mount it with flock (Lustre: -o flock), or write to another one");
    fail("lock", path, error);
  }
}

// the file stays: removing it would let two processes lock two files of one name
FolderLock::~FolderLock() { ::close(fd_); }

// while it is held: who waits for it sees that the file is another one
void FolderLock::remove_empty_folder() {
  for (const auto& name : list_folder(folder_))
    if (name != ".lock") return;
  ::unlink(join_path(folder_, ".lock").c_str());
  ::rmdir(folder_.c_str());
}

}  // namespace lehr
