// SIGKILL at every single system call of a save, of letting old ones go, and of continuing.
#include "tests/checkpoint/traced.h"

namespace lehr::checkpoint {

TEST(KilledAtAnySystemCall, ASaveLosesNothingAcknowledged) {
  Scratch scratch(in_memory());
  if (!can_trace(scratch)) GTEST_SKIP() << "strace is missing or may not trace here";
  std::string folder = scratch / "checkpoints";
  auto prepare = [&] {
    remove_tree(folder);
    save(folder, Known(1).content);
    save(folder, Known(2).content);
  };
  prepare();
  auto points = points_after_begin(traced(scratch, {}, {folder, "save", "3"}).log);
  ASSERT_GT(points.size(), 50u);
  for (const auto& point : points) {
    prepare();
    std::string when = point.name + " number " + std::to_string(point.n);
    auto killed =
        traced(scratch,
               {"-e", "trace=" + point.name, "-e",
                "inject=" + point.name + ":signal=SIGKILL:when=" + std::to_string(point.n)},
               {folder, "save", "3"});
    ASSERT_TRUE(killed.was_killed()) << when;
    std::string complaints;
    auto loaded = claim_newest(folder, [&](const std::string& text) { complaints += text; });
    ASSERT_TRUE(loaded) << when;
    EXPECT_GE(loaded->step, std::max<int64_t>(killed.acknowledged(), 2)) << when;
    EXPECT_EQ(difference(*loaded), "") << when;
    EXPECT_EQ(complaints, "") << when;  // cut short, never damaged
    for (const auto& entry : list(folder)) EXPECT_EQ(difference(load(entry.path)), "") << when;
    expect_no_leftovers(folder, when);
    // the same work done again succeeds
    if (loaded->step == 2) save(folder, Known(3).content);
    EXPECT_EQ(difference(load(join_path(folder, "step-00000003"))), "") << when;
  }
  std::cout << points.size() << " kill points of a save\n";
}

TEST(KilledAtAnySystemCall, ContinuingStillFindsTheSameStep) {
  Scratch scratch(in_memory());
  if (!can_trace(scratch)) GTEST_SKIP() << "strace is missing or may not trace here";
  std::string folder = scratch / "checkpoints";
  auto prepare = [&] {
    remove_tree(folder);
    for (int64_t step : {1, 2, 3}) save(folder, Known(step).content);
    unlink(join_path(folder, "step-00000003/recipe.yaml").c_str());
    make_folders(join_path(folder, "step-00000004.tmp-0a"));
    write_file_durably(join_path(folder, "step-00000004.tmp-0a/model.safetensors"), "part");
    make_folders(join_path(folder, ".trash-step-00000000-0b"));
  };
  prepare();
  auto points = points_after_begin(traced(scratch, {}, {folder, "load"}).log);
  ASSERT_GT(points.size(), 30u);
  for (const auto& point : points) {
    prepare();
    std::string when = point.name + " number " + std::to_string(point.n);
    auto killed =
        traced(scratch,
               {"-e", "trace=" + point.name, "-e",
                "inject=" + point.name + ":signal=SIGKILL:when=" + std::to_string(point.n)},
               {folder, "load"});
    ASSERT_TRUE(killed.was_killed()) << when;
    auto loaded = claim_newest(folder, [](const std::string&) {});
    ASSERT_TRUE(loaded) << when;
    EXPECT_EQ(loaded->step, 2) << when;
    EXPECT_EQ(difference(*loaded), "") << when;
    expect_no_leftovers(folder, when);
  }
  std::cout << points.size() << " kill points of continuing\n";
}

}  // namespace lehr::checkpoint
