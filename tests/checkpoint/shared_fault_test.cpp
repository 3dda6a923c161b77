// A save of two processes, one of which is killed or fails at each of its system calls: what was
// acknowledged stays, the other ends by itself, and the same work done again succeeds.
#include "engine/base/error.h"
#include "tests/checkpoint/traced.h"

namespace lehr::checkpoint {
namespace {

class SharedSave : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!can_trace(scratch)) GTEST_SKIP() << "strace is missing or may not trace here";
    prepare();
    points = points_after_begin(both({}).victim.log);
    ASSERT_GT(points.size(), 25u);
  }
  void prepare() {
    remove_tree(folder);
    save(folder, Known(1).content);
    save(folder, Known(2).content);
  }
  // The part first, then the lead, which finds it or waits for it in vain: so that the calls of
  // each are always the same ones. The victim runs with these options of strace.
  struct Both {
    Finished victim, lead;
  };
  Both both(const std::vector<std::string>& options) {
    const std::string parts = begin_parts(folder, 3);
    Both done;
    for (int index : {1, 0}) {
      std::vector<std::string> words{folder, "part", "3", std::to_string(index), "2", parts};
      if (index == GetParam()) {
        done.victim = traced(scratch, options, words);
        if (index == 0) done.lead = done.victim;
      } else {
        words.insert(words.begin(), save_program());
        Finished other = run(scratch, words);
        if (index == 0) done.lead = std::move(other);
      }
    }
    return done;
  }
  // What a restart finds: never less than was said, whole, and nothing beside it.
  int64_t newest(const Both& done, const std::string& when) {
    std::string complaints;
    auto loaded = claim_newest(folder, [&](const std::string& text) { complaints += text; });
    if (!loaded) return ADD_FAILURE() << when, -1;
    EXPECT_GE(loaded->step, std::max<int64_t>(done.lead.acknowledged(), 2)) << when;
    EXPECT_EQ(difference(*loaded), "") << when;
    EXPECT_EQ(complaints, "") << when;
    for (const auto& entry : list(folder)) EXPECT_EQ(difference(load(entry.path)), "") << when;
    expect_no_leftovers(folder, when);
    return loaded->step;
  }
  Scratch scratch{in_memory()};
  std::string folder = scratch / "checkpoints";
  std::vector<CallPoint> points;
};

TEST_P(SharedSave, OfWhichOneIsKilledLosesNothingAcknowledged) {
  int committed = 0;
  for (const auto& point : points) {
    prepare();
    const std::string when = point.name + " number " + std::to_string(point.n);
    const Both done =
        both({"-e", "trace=" + point.name, "-e",
              "inject=" + point.name + ":signal=SIGKILL:when=" + std::to_string(point.n)});
    ASSERT_TRUE(done.victim.was_killed()) << when;
    if (GetParam() == 1 && done.lead.acknowledged() != 3) {
      EXPECT_NE(done.lead.err.find("part 1 has not been written"), std::string::npos)
          << when << done.lead.err;
    }
    const int64_t step = newest(done, when);
    committed += step == 3;
    if (step == 3) continue;
    EXPECT_EQ(both({}).lead.acknowledged(), 3) << when;
    EXPECT_EQ(difference(load(join_path(folder, "step-00000003"))), "") << when;
  }
  EXPECT_GT(committed, 0);
  EXPECT_LT(committed, static_cast<int>(points.size()));
  std::cout << points.size() << " kill points, after " << committed << " of which step 3 stands\n";
}

TEST_P(SharedSave, OfWhichOneFailsIsGivenUpByBoth) {
  int given_up = 0;
  for (const auto& point : points) {
    if (!is_of_files(point.name)) continue;
    prepare();
    const std::string when = point.name + " number " + std::to_string(point.n);
    const Both done = both({"-e", "trace=" + point.name, "-e",
                            "inject=" + point.name + ":error=EIO:when=" + std::to_string(point.n)});
    ASSERT_NE(done.victim.log.find("(INJECTED)"), std::string::npos) << when;
    if (done.lead.acknowledged() != 3) {
      ++given_up;
      expect_no_leftovers(folder, when);
      EXPECT_EQ(done.lead.code(), static_cast<int>(Code::kCheckpoint)) << when;
      EXPECT_NE(done.lead.err.find("step 3 was not saved"), std::string::npos) << when;
      EXPECT_NE(done.lead.err.find("Input/output error"), std::string::npos)
          << when << done.lead.err;
      EXPECT_EQ(newest(done, when), 2) << when;
    } else {
      EXPECT_EQ(newest(done, when), 3) << when;
    }
    // the part says itself what it lacks, too
    if (GetParam() == 1) {
      EXPECT_EQ(done.victim.code() == 0, done.lead.code() == 0) << when;
    }
  }
  EXPECT_GT(given_up, 10);
  std::cout << given_up << " saves given up\n";
}

INSTANTIATE_TEST_SUITE_P(OfTheLeadOrAPart, SharedSave, ::testing::Values(0, 1));

}  // namespace
}  // namespace lehr::checkpoint
