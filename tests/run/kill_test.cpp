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
  // so long that it outlives the kills; each invocation gets on by some steps
  const int64_t steps = 40 + 30 * kills;
  write_small_recipe(scratch, steps, 3, "export:\n  enabled: false\n");
  ASSERT_EQ(lehr({"train", "small.yaml", "--run", "whole"}, scratch.path).code, 0);

  const uint64_t seed = 20241;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  Random random(seed, Stream::kTest, 1);
  int64_t acknowledged = -1;
  int killed = 0;
  for (int i = 0; i < kills; ++i) {
    pid_t pid =
        start_lehr({"train", "small.yaml", "--run", "cut"}, scratch.path, scratch.file("log"));
    usleep(static_cast<useconds_t>(random.uniform() * 700000));
    kill(pid, SIGKILL);
    if (wait_for(pid) == 128 + SIGKILL) ++killed;
    // what was committed before must still be there, and verify
    const auto newest =
        checkpoint::load_newest(scratch.file("cut/checkpoints"),
                                [](const std::string& problem) { ADD_FAILURE() << problem; });
    const int64_t step = newest ? newest->step : -1;
    ASSERT_GE(step, acknowledged) << "kill " << i;
    acknowledged = step;
  }
  EXPECT_EQ(killed, kills) << "some invocations ended before their kill";
  EXPECT_GT(acknowledged, 0);
  const Outcome rest = lehr({"train", "small.yaml", "--run", "cut"}, scratch.path);
  ASSERT_EQ(rest.code, 0) << rest.out;
  EXPECT_EQ(fingerprint(scratch.file("whole")), fingerprint(scratch.file("cut")));
  std::printf("%d kills, newest checkpoint before the end: step %lld of %lld\n", killed,
              static_cast<long long>(acknowledged), static_cast<long long>(steps));
}

}  // namespace lehr::testing
