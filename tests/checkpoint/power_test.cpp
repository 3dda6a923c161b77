// Power cuts on a file system of our own: ext4 on a loop device, shut down without flushing its
// journal (what xfstests call godown), which loses what was not synced. LEHR_SOAK_CUTS sets the
// count (20).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "tests/base/scratch.h"
#include "tests/checkpoint/content.h"

namespace lehr::checkpoint {
namespace {

constexpr int64_t kScale = 1000;  // of the content that save_program's loop writes

int shell(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str());
}

class LoopDisk {
 public:
  explicit LoopDisk(const Scratch& scratch) : image_(scratch / "image"), mount_(scratch / "mount") {
    make_folders(mount_);
    ready_ =
        shell("truncate -s 48M " + image_) == 0 && shell("mkfs.ext4 -q -F " + image_) == 0 && on();
  }
  ~LoopDisk() { off(); }
  bool ready() const { return ready_; }
  const std::string& path() const { return mount_; }
  bool on() { return mounted_ = shell("mount -o loop " + image_ + " " + mount_) == 0; }
  void cut_power() {
    int fd = open(mount_.c_str(), O_RDONLY);
    uint32_t without_flush = 2;
    ASSERT_EQ(ioctl(fd, _IOR('X', 125, uint32_t), &without_flush), 0) << "FS_IOC_SHUTDOWN";
    close(fd);
  }
  void off() {
    for (int i = 0; mounted_ && i < 100; ++i) {
      if (shell("umount " + mount_) == 0)
        mounted_ = false;
      else
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

 private:
  std::string image_, mount_;
  bool ready_ = false, mounted_ = false;
};

// save_program's endless loop; what it says comes back through a pipe
class Writer {
 public:
  Writer(const std::string& folder, int64_t first) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    child_ = fork();
    if (child_ == 0) {
      dup2(ends[1], 1);
      dup2(open("/dev/null", O_WRONLY), 2);
      std::string program = LEHR_BINARY_DIR "/tests/save_program", step = std::to_string(first);
      execl(program.c_str(), program.c_str(), folder.c_str(), "loop", step.c_str(), nullptr);
      _exit(127);
    }
    close(ends[1]);
    output_ = ends[0];
  }
  bool wait_for_begin() {
    pollfd ready{output_, POLLIN, 0};
    return poll(&ready, 1, 10000) == 1;
  }
  // newest step that it acknowledged before it died, -1 for none
  int64_t stop() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(output_, buffer, sizeof buffer)) > 0;) text.append(buffer, n);
    close(output_);
    size_t at = text.rfind("committed ");
    return at == std::string::npos ? -1 : std::atoll(text.c_str() + at + 10);
  }

 private:
  pid_t child_;
  int output_;
};

}  // namespace

TEST(PowerCut, LosesNothingAcknowledged) {
  if (geteuid() != 0)
    GTEST_SKIP() << "NOT TESTED: power cuts need root, for mounting a loop device";
  Scratch scratch(in_memory());
  LoopDisk disk(scratch);
  if (!disk.ready()) GTEST_SKIP() << "NOT TESTED: no ext4 on a loop device can be made here";
  const char* wanted = std::getenv("LEHR_SOAK_CUTS");
  const int64_t cuts = wanted ? std::atoll(wanted) : 20;
  std::string folder = join_path(disk.path(), "checkpoints");
  Random random(3, Stream::kTest, static_cast<uint64_t>(cuts));
  int64_t newest = 0, saves = 0, cut_short = 0;
  for (int64_t cut = 0; cut < cuts; ++cut) {
    Writer writer(folder, newest + 1);
    ASSERT_TRUE(writer.wait_for_begin());
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(150000)));
    disk.cut_power();
    int64_t acknowledged = std::max(writer.stop(), newest);
    disk.off();
    ASSERT_TRUE(disk.on()) << "the file system does not come back";
    for (const auto& name : list_folder(folder))
      cut_short += name.find(".tmp-") != std::string::npos;
    std::string complaints;
    auto loaded = claim_newest(folder, [&](const std::string& text) { complaints += text + "\n"; });
    EXPECT_EQ(complaints, "") << "torn, cut " << cut;
    int64_t step = loaded ? loaded->step : 0;
    EXPECT_GE(step, acknowledged) << "lost, cut " << cut;
    EXPECT_EQ(loaded ? difference(*loaded, kScale) : "", "") << "cut " << cut;
    saves += step - newest;
    newest = step;
  }
  std::cout << cuts << " power cuts, " << saves << " saves, " << cut_short
            << " of them cut short\n";
  EXPECT_GT(saves, 0);
}

}  // namespace lehr::checkpoint
