// Every system call of a save fails once, in every way that disks know: the save is given up with a
// clear error, what was there stays, and a failed fsync is never asked again.
#include "engine/base/error.h"
#include "tests/checkpoint/traced.h"

namespace lehr::checkpoint {
namespace {

class FailingCalls : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!can_trace(scratch)) GTEST_SKIP() << "strace is missing or may not trace here";
    prepare();
    for (const auto& point : points_after_begin(traced(scratch, {}, {folder, "save", "3"}).log))
      if (is_of_files(point.name)) points.push_back(point);
    ASSERT_GT(points.size(), 40u);
  }
  void prepare() {
    remove_tree(folder);
    save(folder, Known(1).content);
    save(folder, Known(2).content);
  }
  Finished inject(const CallPoint& point, const std::string& what, const std::string& more = "") {
    return traced(scratch,
                  {"-y", "-e", "trace=fsync," + point.name, "-e",
                   "inject=" + point.name + ":" + what + ":when=" + std::to_string(point.n) + more},
                  {folder, "save", "3"});
  }
  Scratch scratch{in_memory()};
  std::string folder = scratch / "checkpoints";
  std::vector<CallPoint> points;
};

// "/path" of the fsync that was made to fail; "" for none
std::string failed_fsync(const std::string& log, size_t* end) {
  size_t injected = log.find("(INJECTED)");
  while (injected != std::string::npos) {
    size_t begin = log.rfind('\n', injected) + 1;
    if (log.compare(begin, 6, "fsync(") == 0) {
      size_t open = log.find('<', begin), close = log.find('>', begin);
      *end = injected;
      return log.substr(open + 1, close - open - 1);
    }
    injected = log.find("(INJECTED)", injected + 1);
  }
  return "";
}

}  // namespace

TEST_F(FailingCalls, GiveTheSaveUpAndLeaveTheOlderOnesIntact) {
  int given_up = 0, fsyncs = 0;
  for (const auto& point : points)
    for (const char* error : {"EIO", "ENOSPC"}) {
      std::string when = point.name + " number " + std::to_string(point.n) + " " + error;
      prepare();
      auto done = inject(point, std::string("error=") + error);
      ASSERT_NE(done.log.find("(INJECTED)"), std::string::npos) << when;
      bool committed = done.acknowledged() == 3;
      if (done.code() != 0) {
        EXPECT_EQ(done.err.rfind("error: ", 0), 0u) << when << " " << done.err;
        EXPECT_TRUE(done.err.find("Input/output error") != std::string::npos ||
                    done.err.find("No space left") != std::string::npos)
            << when << " " << done.err;
      }
      EXPECT_FALSE(committed && (point.name == "pwrite64" || point.name == "fallocate")) << when;
      if (!committed) {
        ++given_up;
        EXPECT_EQ(done.code(), static_cast<int>(Code::kCheckpoint)) << when;
        EXPECT_NE(done.err.find("step 3 was not saved"), std::string::npos)
            << when << " " << done.err;
        expect_no_leftovers(folder, when);
        EXPECT_EQ(difference(load(join_path(folder, "step-00000001"))), "") << when;
        EXPECT_FALSE(file_exists(join_path(folder, "step-00000003"))) << when;
      }
      size_t at = 0;
      if (std::string path = failed_fsync(done.log, &at); !path.empty()) {
        ++fsyncs;
        EXPECT_FALSE(committed && path != folder) << when;
        EXPECT_EQ(
            done.log.find("fsync(", at) == std::string::npos ||
                done.log.find("<" + path + ">", done.log.find("fsync(", at)) == std::string::npos,
            true)
            << when << ": " << path << " was synced again";
      }
      EXPECT_EQ(difference(load(join_path(folder, "step-00000002"))), "") << when;
      std::string complaints;
      auto loaded = claim_newest(folder, [&](const std::string& text) { complaints += text; });
      ASSERT_TRUE(loaded) << when;
      EXPECT_EQ(loaded->step, committed ? 3 : 2) << when;
      EXPECT_EQ(difference(*loaded), "") << when;
      EXPECT_EQ(complaints, "") << when;
    }
  EXPECT_GT(given_up, 50);
  EXPECT_GE(fsyncs, 14);
  std::cout << points.size() << " calls, two errors each: " << given_up << " saves given up, "
            << fsyncs << " of them at fsync\n";
}

TEST_F(FailingCalls, EvenWhenTheyNeverWorkAgain) {
  for (const auto& point : points) {
    std::string when = point.name + " number " + std::to_string(point.n) + " and on";
    prepare();
    auto done = inject(point, "error=EIO", "+");
    EXPECT_TRUE(WIFEXITED(done.status)) << when;
    std::string complaints;
    auto loaded = claim_newest(folder, [&](const std::string& text) { complaints += text; });
    ASSERT_TRUE(loaded) << when;
    EXPECT_GE(loaded->step, std::max<int64_t>(done.acknowledged(), 2)) << when;
    EXPECT_EQ(difference(*loaded), "") << when;
    EXPECT_EQ(complaints, "") << when;
    expect_no_leftovers(folder, when);
  }
}

TEST_F(FailingCalls, InterruptedOnesAreDoneAgain) {
  int tried = 0;
  for (const auto& point : points) {
    if (point.name != "pwrite64" && point.name != "openat" && point.name != "statfs" &&
        point.name != "fallocate")
      continue;
    prepare();
    auto done = inject(point, "error=EINTR");
    ++tried;
    // opendir and remove_all do not ask again, and nothing after the commit has to
    if (done.code() != 0) {
      EXPECT_EQ(point.name, "openat");
      EXPECT_EQ(done.acknowledged(), 3) << done.err;
    }
    EXPECT_EQ(difference(load(join_path(folder, "step-00000003"))), "");
  }
  EXPECT_GT(tried, 15);
}

// the call says that a byte was written, and it was not
TEST_F(FailingCalls, AWriteThatLiesIsFoundWhenLoading) {
  int refused = 0;
  for (const auto& point : points) {
    if (point.name != "pwrite64") continue;
    prepare();
    auto done = inject(point, "retval=1");
    ASSERT_EQ(done.acknowledged(), 3);
    std::string complaints;
    auto loaded = claim_newest(folder, [&](const std::string& text) { complaints += text; });
    ASSERT_TRUE(loaded);
    EXPECT_EQ(difference(*loaded), "") << point.n;
    if (loaded->step == 3) continue;  // the byte that was lost is a zero
    ++refused;
    EXPECT_EQ(loaded->step, 2);
    EXPECT_NE(complaints.find("step-00000003/"), std::string::npos) << complaints;
  }
  EXPECT_GE(refused, 5);
}

TEST_F(FailingCalls, ShortAndInterruptedWritesGiveTheSameFile) {
  prepare();
  save(scratch / "reference", Known(3).content);
  auto done = run(scratch, {save_program(), folder, "save", "3"},
                  {{"LD_PRELOAD", LEHR_BINARY_DIR "/tests/libshort_writes.so"}});
  ASSERT_EQ(done.code(), 0) << done.err;
  for (const auto& name : list_folder(scratch / "reference/step-00000003"))
    EXPECT_EQ(read_file(join_path(folder, "step-00000003/" + name)),
              read_file(scratch / ("reference/step-00000003/" + name)))
        << name;
}

}  // namespace lehr::checkpoint
