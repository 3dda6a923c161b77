#include "engine/track/append_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/base/error.h"

namespace lehr::track {

namespace {

[[noreturn]] void fail(const char* action, const std::string& path, int error) {
  throw Error(
      Code::kData, fmt::format("cannot {}: {}", action, std::strerror(error)), path,
      error == ENOSPC || error == EDQUOT ? "free some space there" : "check the permissions there");
}

}  // namespace

AppendFile::AppendFile(std::string path, bool fresh) : path_(std::move(path)) {
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | (fresh ? O_EXCL : 0);
  do fd_ = ::open(path_.c_str(), flags, 0666);
  while (fd_ < 0 && errno == EINTR);
  if (fd_ < 0) fail("open", path_, errno);
  const off_t end = ::lseek(fd_, 0, SEEK_END);
  if (end < 0) {
    const int error = errno;
    ::close(fd_);
    fail("find the end", path_, error);
  }
  size_ = static_cast<uint64_t>(end);
}

AppendFile::~AppendFile() { ::close(fd_); }

std::string AppendFile::read(uint64_t offset, uint64_t bytes) const {
  std::string text(bytes, '\0');
  for (size_t done = 0; done < text.size();) {
    const ssize_t n =
        ::pread(fd_, text.data() + done, text.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("read", path_, n < 0 ? errno : EIO);
    done += static_cast<size_t>(n);
  }
  return text;
}

void AppendFile::cut(uint64_t size) {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) fail("cut", path_, errno);
  size_ = size;
  if (::fsync(fd_) != 0) fail("sync", path_, errno);
}

void AppendFile::replace_from(uint64_t offset, std::string_view piece) {
  const std::string before = read(offset, size_ - offset);
  try {
    write_at(offset, piece);
  } catch (const std::exception&) {
    // where there was room for these bytes there is still
    if (size_ == offset) write_at(offset, before);
    throw;
  }
}

void AppendFile::write_at(uint64_t offset, std::string_view piece) {
  size_t done = 0;
  while (done < piece.size()) {
    const ssize_t n =
        ::pwrite(fd_, piece.data() + done, piece.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      // half a piece would damage the file: cut it off again
      const int error = n < 0 ? errno : ENOSPC;
      if (::ftruncate(fd_, static_cast<off_t>(offset)) == 0) size_ = offset;
      fail("write", path_, error);
    }
    done += static_cast<size_t>(n);
  }
  size_ = offset + piece.size();
}

}  // namespace lehr::track
