// Starts the real program as a user would, and makes small data sets for it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
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
// Its exit code as in Outcome. One that has not ended after so long is killed, and the test fails.
int wait_for(pid_t pid, double seconds = 900);
// Until `condition` holds. False when it does not within `seconds`, or once `pid`, the child that
// is to bring it about, has ended without.
bool wait_for(const std::function<bool()>& condition, double seconds = 60, pid_t pid = 0);
// Nothing listens there on any address of this machine.
int free_port();

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
