// What the fault tests kill, starve and cut the power of: saves known content, without LibTorch. It
// says what is committed through plain write(2), so that nothing said is ever in a buffer.
//   save_program FOLDER save STEP     saves one step, then lets old ones go
//   save_program FOLDER load          continues from the newest
//   save_program FOLDER loop STEP     saves STEP, STEP + 1, ... until it is stopped
//   save_program FOLDER part STEP INDEX COUNT PART_FOLDER   one process of several that save a step
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "engine/base/error.h"
#include "tests/checkpoint/content.h"

namespace {

using namespace lehr::checkpoint;

void say(int fd, const std::string& text) {
  if (::write(fd, text.data(), text.size()) < 0) _exit(99);
}

void save_one(const std::string& folder, int64_t step, int64_t scale) {
  save(folder, Known(step, scale).content);
  say(1, "committed " + std::to_string(step) + "\n");
  retain(folder, {2, 0, 0, true});
}

void save_part(const std::string& folder, int64_t step, char** words) {
  Known known(step);
  const int64_t index = std::atoll(words[0]);
  known.take_part(index, std::atoll(words[1]), words[2], /*patience_s=*/0.05);
  save(folder, known.content);
  if (index > 0) return;
  say(1, "committed " + std::to_string(step) + "\n");
  retain(folder, {2, 0, 0, true});
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) return 2;
  std::string folder = words[1], verb = words[2];
  int64_t step = count > 3 ? std::atoll(words[3]) : 0;
  say(1, "begin\n");
  try {
    if (verb == "save") save_one(folder, step, 1);
    if (verb == "part" && count == 7) save_part(folder, step, words + 4);
    if (verb == "loop")
      for (;; ++step) save_one(folder, step, 1000);
    if (verb == "load") {
      const lehr::FolderLock lock(folder + "/..");
      auto loaded =
          claim_newest(folder, lock, [](const std::string& text) { say(2, text + "\n"); });
      say(1, "loaded " + std::to_string(loaded ? loaded->step : -1) + "\n");
    }
  } catch (const lehr::Error& e) {
    say(2, std::string("error: ") + e.what() + "\n");
    return static_cast<int>(e.code());
  }
  return 0;
}
