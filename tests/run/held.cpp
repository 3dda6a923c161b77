// Preloaded: what opens, writes or flushes a file stands still while the file `hold` of the working
// folder names a part of that file's path ("exit": the end of the program), and a rank if not any.
// Then `held` is there.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

bool is_held(const char* path) {
  const int fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, "hold", O_RDONLY | O_CLOEXEC));
  if (fd < 0) return false;
  char text[256] = "", part[256] = "", rank[256] = "";
  const bool is_read = syscall(SYS_read, fd, text, sizeof text - 1) > 0;
  syscall(SYS_close, fd);
  if (!is_read || std::sscanf(text, "%s %s", part, rank) < 1 || !std::strstr(path, part))
    return false;
  const char* own = std::getenv("RANK");
  return !*rank || std::strcmp(rank, own ? own : "0") == 0;
}

void stand(const char* path) {
  if (!is_held(path)) return;
  syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, "held", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  while (is_held(path)) usleep(20000);
}

void stand_in(int fd) {
  char name[64], path[4096] = "";
  std::snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  if (readlink(name, path, sizeof path - 1) > 0) stand(path);
}

[[gnu::destructor]] void end() { stand("exit"); }

}  // namespace

extern "C" int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = va_arg(rest, int);
  va_end(rest);
  stand(path);
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

extern "C" ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
  stand_in(fd);
  return syscall(SYS_pwrite64, fd, data, bytes, at);
}

extern "C" int fsync(int fd) {
  stand_in(fd);
  return static_cast<int>(syscall(SYS_fsync, fd));
}
