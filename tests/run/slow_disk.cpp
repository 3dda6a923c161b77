// Preloaded into a rank, makes every flush of a file take half a second.
#include <sys/syscall.h>
#include <unistd.h>

extern "C" int fsync(int fd) {
  usleep(500000);
  return static_cast<int>(syscall(SYS_fsync, fd));
}
