// This program again, as a process of its own, for the verbs that compare whole runs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace lehr::run {

// Starts `words` (the program first); its output is appended to the file `log`. It is asked to stop
// when this process ends.
pid_t spawn(std::vector<std::string> words, const std::string& log);
// Waits for its end; the status as waitpid's.
int end_of(pid_t pid);
// Waits; throws Error{kInternal} naming the log unless it ended with 0.
void finish(pid_t pid, const std::string& log);

}  // namespace lehr::run
