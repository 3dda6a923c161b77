// Runs save_program under strace, which can count, fail or kill at any system call.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/base/scratch.h"
#include "tests/checkpoint/content.h"

namespace lehr::checkpoint {

inline std::string save_program() { return LEHR_BINARY_DIR "/tests/save_program"; }

// One finished process. `status` as of waitpid.
struct Finished {
  int status = 0;
  std::string out, err, log;
  bool was_killed() const { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }
  int code() const { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }
  // newest step that it said is committed, -1 for none
  int64_t acknowledged() const {
    size_t at = out.rfind("committed ");
    return at == std::string::npos ? -1 : std::atoll(out.c_str() + at + 10);
  }
};

inline Finished run(const Scratch& scratch, std::vector<std::string> words,
                    const std::map<std::string, std::string>& environment = {}) {
  std::string out = scratch / "out", err = scratch / "err";
  pid_t child = fork();
  if (child == 0) {
    for (const auto& [key, value] : environment) setenv(key.c_str(), value.c_str(), 1);
    dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  Finished finished;
  waitpid(child, &finished.status, 0);
  finished.out = read_file(out);
  finished.err = read_file(err);
  return finished;
}

inline Finished traced(const Scratch& scratch, const std::vector<std::string>& options,
                       const std::vector<std::string>& program) {
  std::vector<std::string> words = {"strace", "-o", scratch / "log"};
  words.insert(words.end(), options.begin(), options.end());
  words.push_back(save_program());
  words.insert(words.end(), program.begin(), program.end());
  Finished finished = run(scratch, words);
  finished.log = read_file(scratch / "log");
  return finished;
}

inline bool can_trace(const Scratch& scratch) {
  return run(scratch, {"strace", "-o", "/dev/null", "true"}).code() == 0;
}

// One call of the program after its "begin": the n-th one of that name since its exec.
struct CallPoint {
  std::string name;
  int n;
};

inline std::vector<CallPoint> points_after_begin(const std::string& log) {
  std::vector<CallPoint> points;
  std::map<std::string, int> counts;
  bool begun = false;
  for (size_t begin = 0; begin < log.size();) {
    size_t end = std::min(log.find('\n', begin), log.size());
    std::string line = log.substr(begin, end - begin);
    begin = end + 1;
    size_t bracket = line.find('(');
    if (bracket == std::string::npos || line[0] == '+' || line[0] == '-') continue;
    std::string name = line.substr(0, bracket);
    int n = ++counts[name];
    if (begun && name != "exit_group") points.push_back({name, n});
    begun = begun || line.rfind("write(1, \"begin", 0) == 0;
  }
  return points;
}

// calls on files; memory, time and the terminal are not what a save can be asked to survive
inline bool is_of_files(const std::string& name) {
  static const std::set<std::string> others = {"mmap",   "munmap",    "brk",
                                               "write",  "getrandom", "mprotect",
                                               "getpid", "futex",     "rt_sigprocmask"};
  return !others.count(name);
}

inline void expect_no_leftovers(const std::string& folder, const std::string& when) {
  for (const auto& name : list_folder(folder))
    EXPECT_TRUE(name.find(".tmp-") == std::string::npos && name.rfind(".trash-", 0) != 0)
        << when << ": " << name;
}

}  // namespace lehr::checkpoint
