#include "engine/base/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "engine/base/error.h"

namespace lehr {
namespace {

namespace fs = std::filesystem;

void write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE && fd == 1) {  // as if whoever started us had not ignored it
      remove_temporaries();
      ::signal(SIGPIPE, SIG_DFL);
      ::raise(SIGPIPE);
    }
    if (n < 0)
      throw Error(Code::kData, fmt::format("the output is lost: {}", std::strerror(errno)), path,
                  errno == ENOSPC ? "free some space there, or write elsewhere" : "");
    text.remove_prefix(static_cast<size_t>(n));
  }
}

// The descriptor of this process that a path names, or -1.
int own_descriptor(const std::string& path) {
  if (path == "-" || path == "/dev/stdout") return 1;
  if (path == "/dev/stderr") return 2;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    const std::string number = path.substr(folder.size());
    if (!number.empty() && number.size() < 6 &&
        number.find_first_not_of("0123456789") == number.npos)
      return std::stoi(number);
  }
  return -1;
}

// Links followed, also one to what is not there yet; not into a descriptor of this process.
std::string followed(std::string path) {
  std::error_code error;
  for (int links = 0; own_descriptor(path) < 0 && fs::is_symlink(path, error) && links < 40;
       ++links)
    path = (fs::path(path).parent_path() / fs::read_symlink(path, error)).string();
  return path;
}

// A pipe has a reader soon, or none.
int open_as_it_is(const std::string& path) {
  int fd = -1;
  for (int waits = 0; waits < 50; ++waits) {
    fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 || errno != ENXIO) break;
    ::usleep(100'000);
  }
  if (fd < 0)
    throw Error(Code::kData,
                errno == ENXIO ? std::string("is a pipe that nobody reads")
                               : fmt::format("cannot open: {}", std::strerror(errno)),
                path, errno == ENXIO ? "start its reader first" : "");
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  return fd;
}

Error refused(const std::string& path, const char* what, const char* hint) {
  return Error(Code::kUsage, what, path, hint);
}

}  // namespace

void print_out(std::string_view text) { write_all(1, text, "standard output"); }

OutputFile::OutputFile(const std::string& path, const std::vector<std::string>& inputs)
    : path_(followed(path)), fd_(own_descriptor(path_)) {
  struct stat info {};
  if (fd_ >= 0) {
    if (::fstat(fd_, &info) != 0) throw refused(path, "is not open", "name a file");
    return;
  }
  if (::stat(path_.c_str(), &info) == 0) {
    for (const auto& input : inputs) {
      struct stat other {};
      if (S_ISREG(info.st_mode) && ::stat(input.c_str(), &other) == 0 &&
          other.st_dev == info.st_dev && other.st_ino == info.st_ino)
        throw refused(path, "is the input too, and would be gone", "name another file");
    }
    if (S_ISDIR(info.st_mode)) throw refused(path, "is a folder", "name a file in it");
    if (S_ISBLK(info.st_mode) || S_ISSOCK(info.st_mode))
      throw refused(path, S_ISBLK(info.st_mode) ? "is a disk" : "is a socket", "name a file");
    if (!S_ISREG(info.st_mode)) {
      fd_ = open_as_it_is(path_);
      return;
    }
  }
  const std::string folder = fs::path(path_).parent_path().string();
  if (!folder.empty() && !fs::is_directory(folder))
    throw refused(path, "its folder is not there", "make it first");
  temporary_ = std::make_unique<Temporary>(path_ + ".tmp-" + unique_id());
  writer_ = std::make_unique<FileWriter>(temporary_->path());
}

OutputFile::~OutputFile() {
  if (fd_ >= 0 && own_descriptor(path_) < 0) ::close(fd_);
}

void OutputFile::write(std::string_view text) {
  if (writer_)
    writer_->write(text.data(), text.size());
  else
    write_all(fd_, text, path_);
}

void OutputFile::finish() {
  if (!writer_) return;
  writer_->commit();
  temporary_->rename_durably(path_);
}

void write_output(const std::string& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.finish();
}

}  // namespace lehr
