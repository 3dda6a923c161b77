// kill -9 at random, many times over one training: nothing acknowledged is lost, and the end has
// the bits of a training that was never cut. LEHR_SOAK_KILLS sets how often (40 in CI).
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>

#include "engine/base/files.h"
#include "engine/base/random.h"
#include "engine/checkpoint/checkpoint.h"
#include "tests/run/program.h"

namespace lehr::testing {

TEST(Kill, AtRandomManyTimesLosesNothing) {
  const char* wanted = std::getenv("LEHR_SOAK_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 40;
  Scratch scratch;
  write_images(scratch, 200);
  const int64_t steps = 40 + 12 * kills;
  write_small_recipe(scratch, steps, 3, "export:\n  enabled: false\n");
  ASSERT_EQ(lehr({"train", "small.yaml", "--run", "whole"}, scratch.path).code, 0);
  const std::string whole = fingerprint(scratch.file("whole"));

  const uint64_t seed = 20241;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  Random random(seed, Stream::kTest, 1);
  int64_t acknowledged = -1, furthest = -1;
  int killed = 0, finished = 0;
  while (killed < kills) {
    // a training that came to its end between two kills is followed by another
    const std::string run = "cut-" + std::to_string(finished);
    pid_t pid =
        start_lehr({"train", "small.yaml", "--run", run}, scratch.path, scratch.file("log"));
    usleep(static_cast<useconds_t>(random.uniform() * 700000));
    kill(pid, SIGKILL);
    const int code = wait_for(pid);
    if (code == 0) {
      ASSERT_EQ(whole, fingerprint(scratch.file(run))) << killed << " kills";
      ASSERT_LT(++finished, kills) << "the training is over before it can be killed";
      acknowledged = -1;
      continue;
    }
    ASSERT_EQ(code, 128 + SIGKILL) << scratch.read("log");
    ++killed;
    // what was committed before must still be there, and verify
    const auto newest =
        checkpoint::newest(scratch.file(run + "/checkpoints"),
                           [](const std::string& problem) { ADD_FAILURE() << problem; });
    const int64_t step = newest ? newest->step : -1;
    ASSERT_GE(step, acknowledged) << "kill " << killed;
    acknowledged = step;
    furthest = std::max(furthest, step);
  }
  EXPECT_GT(furthest, 0);
  const std::string run = "cut-" + std::to_string(finished);
  const Outcome rest = lehr({"train", "small.yaml", "--run", run}, scratch.path);
  ASSERT_EQ(rest.code, 0) << rest.out;
  EXPECT_EQ(whole, fingerprint(scratch.file(run)));
  std::printf("%d kills over %d training(s) of %lld steps\n", killed, finished + 1,
              static_cast<long long>(steps));
}

}  // namespace lehr::testing
