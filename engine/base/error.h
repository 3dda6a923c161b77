// The one exception type for what a user can put right, and the exit codes that scripts rely on.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace lehr {

// Exit codes of the program; also the kind of an Error.
enum class Code : int {
  kOk = 0,
  kInternal = 1,    // a fault of ours
  kUsage = 2,       // wrong command line
  kRecipe = 3,      // the recipe says something that cannot be
  kData = 4,        // a data file is missing, short or corrupt
  kCheckpoint = 5,  // a checkpoint or artefact does not verify, or does not fit
  kRanks = 6,
  kNonFinite = 7,
  kStopped = 75,      // stopped early with everything saved: run the same command again
  kInterrupted = 130  // interrupted twice
};

// `what` says what is wrong, `where` the file:line:column or key, `hint` what to do. Either of the
// last two may be empty. what() of the exception is "where: what\n  hint".
class Error : public std::runtime_error {
 public:
  Error(Code code, std::string what, std::string where = "", std::string hint = "");
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  const std::string& hint() const { return hint_; }

 private:
  Code code_;
  std::string message_, where_, hint_;
};

// Nearest name to `wrong` by edit distance, or "" when nothing is near (distance > 1/2 length).
std::string nearest(const std::string& wrong, const std::vector<std::string>& known);

}  // namespace lehr
