// Starts the real program as a user would, and makes small data sets for it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lehr::testing {

struct Outcome {
  int code = -1;    // exit code; 128 + signal when killed
  std::string out;  // stdout and stderr together
};

// build/lehr with these words, in `folder`.
Outcome lehr(const std::vector<std::string>& words, const std::string& folder);
Outcome shell(const std::string& command, const std::string& folder);
// Starts and returns at once; output appended to `log`.
pid_t start_lehr(const std::vector<std::string>& words, const std::string& folder,
                 const std::string& log);
int wait_for(pid_t pid);  // exit code as in Outcome

// A folder of its own for each test, removed at the end.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  std::string path;
  std::string file(const std::string& name) const { return path + "/" + name; }
  void write(const std::string& name, const std::string& content) const;
  std::string read(const std::string& name) const;
};

// Three IDX files pairs (train, test) of `n` 8 x 8 images in three classes that a small net can
// learn.
void write_images(const Scratch& scratch, int64_t n);
// A recipe `small.yaml` on them: cnn, `steps` steps of 16, a checkpoint every `interval` steps.
void write_small_recipe(const Scratch& scratch, int64_t steps, int64_t interval,
                        const std::string& more = "");
// Checksums of all tensors of a run's newest checkpoint, one line each.
std::string fingerprint(const std::string& run);

}  // namespace lehr::testing
