// Where a verb's output goes: whole plain files, and what is none stays what it is.
#include "engine/base/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "engine/base/error.h"
#include "tests/base/scratch.h"

namespace lehr {
namespace {

namespace fs = std::filesystem;

TEST(Output, IsThereWholeOrNotAtAll) {
  const Scratch scratch;
  write_output(scratch / "f", "old");
  {
    OutputFile file(scratch / "f");
    file.write("ne");
    file.write("w");
    EXPECT_EQ(read_file(scratch / "f"), "old");
    file.finish();
  }
  EXPECT_EQ(read_file(scratch / "f"), "new");
  { OutputFile(scratch / "f").write("half"); }
  EXPECT_EQ(read_file(scratch / "f"), "new");
  EXPECT_EQ(list_folder(scratch.path()), std::vector<std::string>{"f"});
}

TEST(Output, FollowsALinkAlsoToWhatIsNotThereYet) {
  const Scratch scratch;
  make_folders(scratch / "real");
  fs::create_symlink("real/out", scratch / "link");
  for (const char* text : {"first", "second"}) {
    write_output(scratch / "link", text);
    EXPECT_EQ(read_file(scratch / "real/out"), text);
    EXPECT_TRUE(fs::is_symlink(scratch / "link"));
  }
  // as a link to /dev/stdout, which may be a pipe
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  fs::create_symlink("/dev/fd/" + std::to_string(ends[1]), scratch / "descriptor");
  write_output(scratch / "descriptor", "third");
  char got[5];
  ASSERT_EQ(read(ends[0], got, sizeof got), 5);
  EXPECT_EQ(std::string(got, 5), "third");
  EXPECT_EQ(close(ends[1]), 0);  // it was not ours to close
  close(ends[0]);
}

TEST(Output, GoesIntoAPipeAndLeavesADeviceWhatItIs) {
  const Scratch scratch;
  ASSERT_EQ(mkfifo((scratch / "pipe").c_str(), 0600), 0);
  std::string got;
  std::thread reader([&] {
    char text[16] = {};
    const int fd = open((scratch / "pipe").c_str(), O_RDONLY);
    while (read(fd, text, 1) == 1) got += text;
    close(fd);
  });
  write_output(scratch / "pipe", "through");
  reader.join();
  EXPECT_EQ(got, "through");
  EXPECT_TRUE(fs::is_fifo(scratch / "pipe"));
  EXPECT_EQ(message_of([&] { write_output(scratch / "pipe", "x"); }),
            scratch / "pipe" + ": is a pipe that nobody reads\n  start its reader first");

  if (mknod((scratch / "null").c_str(), S_IFCHR | 0600, makedev(1, 3)) != 0)
    GTEST_SKIP() << "devices need root";
  // where file systems take devices (no nodev)
  const bool opens = message_of([&] { write_output(scratch / "null", "x"); }).empty();
  EXPECT_TRUE(fs::is_character_file(scratch / "null"));
  if (!opens) GTEST_SKIP() << "devices cannot be opened in this folder";
  ASSERT_EQ(mknod((scratch / "full").c_str(), S_IFCHR | 0600, makedev(1, 7)), 0);
  EXPECT_NE(message_of([&] { write_output(scratch / "full", "x"); }).find("the output is lost"),
            std::string::npos);
}

TEST(Output, RefusesItsInputAFolderAndADisk) {
  const Scratch scratch;
  write_output(scratch / "in", "rows");
  fs::create_symlink("in", scratch / "link");
  const auto refused = [&](const std::string& name) {
    const std::string message = message_of([&] {
      OutputFile(scratch / name, {scratch / "other", scratch / "in"});
    });
    return message.substr(0, message.find('\n')).substr(scratch.path().size() + 1);
  };
  EXPECT_EQ(refused("in"), "in: is the input too, and would be gone");
  EXPECT_EQ(refused("link"), "link: is the input too, and would be gone");
  make_folders(scratch / "folder");
  EXPECT_EQ(refused("folder"), "folder: is a folder");
  EXPECT_EQ(refused("nowhere/out"), "nowhere/out: its folder is not there");
  if (mknod((scratch / "disk").c_str(), S_IFBLK | 0600, makedev(7, 250)) == 0) {
    EXPECT_EQ(refused("disk"), "disk: is a disk");
  }
  EXPECT_EQ(read_file(scratch / "in"), "rows");
}

// whatever writes it
TEST(Files, WrittenDurablyReplaceNoPipeOrLink) {
  const Scratch scratch;
  ASSERT_EQ(mkfifo((scratch / "pipe").c_str(), 0600), 0);
  fs::create_symlink("elsewhere", scratch / "link");
  for (const char* name : {"pipe", "link"}) {
    EXPECT_NE(message_of([&] { write_file_durably(scratch / name, "x"); }).find("no plain file"),
              std::string::npos);
    EXPECT_FALSE(fs::is_regular_file(fs::symlink_status(scratch / name)));
  }
}

}  // namespace
}  // namespace lehr
