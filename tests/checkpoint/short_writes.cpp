// Preloaded into save_program: every write to a file is interrupted or short.
#include <dlfcn.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>

extern "C" ssize_t pwrite64(int fd, const void* data, size_t bytes, off_t offset) {
  static auto real =
      reinterpret_cast<ssize_t (*)(int, const void*, size_t, off_t)>(dlsym(RTLD_NEXT, "pwrite64"));
  static int calls = 0;
  if (++calls % 3 == 0) return errno = EINTR, -1;
  return real(fd, data, std::min<size_t>(bytes, 7), offset);
}
extern "C" ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  return pwrite64(fd, data, bytes, offset);
}
