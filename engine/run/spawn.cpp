#include "engine/run/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/error.h"

namespace lehr::run {

pid_t spawn(std::vector<std::string> words, const std::string& log) {
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (output < 0) throw Error(Code::kData, "cannot open the log of a process", log);
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // whoever compares whole runs is not survived by them
    if (::getppid() != parent) ::_exit(127);
    ::dup2(output, 1);
    ::dup2(output, 2);
    ::execv(arguments.front(), arguments.data());
    ::_exit(127);
  }
  ::close(output);
  if (pid < 0) throw Error(Code::kInternal, "cannot start " + words.front());
  return pid;
}

int end_of(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

void finish(pid_t pid, const std::string& log) {
  const int status = end_of(pid);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw Error(Code::kInternal, "a training run of the test failed", log,
                "its output is in this file");
}

}  // namespace lehr::run
