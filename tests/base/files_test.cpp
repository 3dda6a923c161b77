// Files: what is written is there, what cannot be is said, and a lock is seen by other processes.
#include "engine/base/files.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "engine/base/error.h"
#include "tests/base/scratch.h"

namespace lehr {

TEST(Files, WrittenDurablyReadsBackAndLeavesNoTemporary) {
  Scratch scratch;
  std::string content("a\0b\n", 4);
  write_file_durably(scratch / "f", "old and longer");
  write_file_durably(scratch / "f", content);
  EXPECT_EQ(read_file(scratch / "f"), content);
  EXPECT_EQ(list_folder(scratch.path()), std::vector<std::string>{"f"});
}

TEST(Files, WriterAppendsAndCutsWhatItReservedTooMuch) {
  Scratch scratch;
  FileWriter writer(scratch / "f", 1000);
  writer.write("abc", 3);
  writer.write("", 0);
  writer.write("de", 2);
  EXPECT_EQ(writer.size(), 5u);
  writer.commit();
  EXPECT_EQ(read_file(scratch / "f"), "abcde");
}

TEST(Files, WriterNeverOverwrites) {
  Scratch scratch;
  write_file_durably(scratch / "f", "precious");
  EXPECT_NE(message_of([&] { FileWriter(scratch / "f"); }).find("File exists"), std::string::npos);
  EXPECT_EQ(read_file(scratch / "f"), "precious");
}

TEST(Files, ErrorsNamePathAndReason) {
  Scratch scratch;
  std::string missing = scratch / "nothing/here";
  for (const std::string& message : {message_of([&] { read_file(missing); }),
                                     message_of([&] { write_file_durably(missing, "x"); }),
                                     message_of([&] { FileWriter writer(missing); }),
                                     message_of([&] { sync_folder(missing); })}) {
    EXPECT_NE(message.find(missing), std::string::npos) << message;
    EXPECT_NE(message.find("No such file"), std::string::npos) << message;
  }
  EXPECT_NE(message_of([&] { read_file(scratch.path()); }).find("directory"), std::string::npos);
}

TEST(Files, AFullDeviceIsAnErrorAndNotAShortFile) {
  // FileWriter creates its files, so the full device is met through a limit on the file's size
  pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    rlimit limit{100, 100};
    setrlimit(RLIMIT_FSIZE, &limit);
    Scratch scratch;
    std::string message =
        message_of([&] { write_file_durably(scratch / "f", std::string(200, 'x')); });
    bool clean = list_folder(scratch.path()).empty();
    remove_tree(scratch.path());
    _exit(message.find("File too large at byte 100") != std::string::npos && clean ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Files, ReadingHoldsItsLimit) {
  Scratch scratch;
  write_file_durably(scratch / "f", "12345");
  EXPECT_EQ(read_file(scratch / "f", 5), "12345");
  EXPECT_NE(message_of([&] { read_file(scratch / "f", 4); }).find("larger"), std::string::npos);
  EXPECT_NE(message_of([&] { read_file("/dev/zero", 1 << 20); }).find("larger"), std::string::npos);
}

TEST(Files, ReadingAPipeWithoutWriterDoesNotHang) {
  Scratch scratch;
  ASSERT_EQ(mkfifo((scratch / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_file(scratch / "pipe"), "");
}

TEST(Files, FoldersAreMadeWithTheirParents) {
  Scratch scratch;
  make_folders(scratch / "a/b//c/");
  make_folders(scratch / "a/b/c");
  EXPECT_TRUE(file_exists(scratch / "a/b/c"));
  write_file_durably(scratch / "file", "");
  EXPECT_NE(message_of([&] { make_folders(scratch / "file"); }), "");
  EXPECT_NE(message_of([&] { make_folders(scratch / "file/below"); }), "");
}

TEST(Files, RemovingATreeDoesNotFollowLinks) {
  Scratch scratch;
  make_folders(scratch / "tree/deep");
  make_folders(scratch / "other");
  write_file_durably(scratch / "other/kept", "1");
  ASSERT_EQ(symlink((scratch / "other").c_str(), (scratch / "tree/deep/link").c_str()), 0);
  remove_tree(scratch / "tree");
  remove_tree(scratch / "tree");
  EXPECT_FALSE(file_exists(scratch / "tree"));
  EXPECT_TRUE(file_exists(scratch / "other/kept"));
}

TEST(Files, AbsentFolderListsAsEmpty) {
  Scratch scratch;
  EXPECT_TRUE(list_folder(scratch / "none").empty());
}

TEST(Files, PathsJoin) {
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  EXPECT_EQ(join_path("a", "/b"), "/b");
  EXPECT_EQ(join_path("", "b"), "b");
  EXPECT_EQ(join_path("a", ""), "a");
}

// tries the lock in another process: its exit code is the Error's code, 0 for taken
static int lock_elsewhere(const std::string& folder, std::string* message = nullptr) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  pid_t child = fork();
  if (child == 0) {
    try {
      FolderLock lock(folder);
      _exit(0);
    } catch (const Error& e) {
      if (write(ends[1], e.what(), std::string(e.what()).size()) < 0) _exit(99);
      _exit(static_cast<int>(e.code()));
    }
  }
  close(ends[1]);
  char text[1000] = {};
  if (read(ends[0], text, sizeof text - 1) < 0) return -1;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (message) *message = text;
  return WEXITSTATUS(status);
}

TEST(FolderLock, IsRefusedToAnotherProcessNamingTheHolder) {
  Scratch scratch;
  FolderLock lock(scratch.path());
  std::string message;
  EXPECT_EQ(lock_elsewhere(scratch.path(), &message), static_cast<int>(Code::kUsage));
  char host[65] = {};
  ASSERT_EQ(gethostname(host, sizeof host - 1), 0);
  EXPECT_NE(message.find("(pid " + std::to_string(getpid()) + " on " + host + ")"),
            std::string::npos)
      << message;
}

TEST(FolderLock, TakesItsFolderAwayOnlyWhenItIsEmpty) {
  Scratch scratch;
  const std::string folder = scratch.path() + "/run";
  ASSERT_TRUE(make_new_folder(folder));
  EXPECT_FALSE(make_new_folder(folder));
  {
    FolderLock lock(folder);
    std::ofstream(folder + "/row") << "1";
    lock.remove_empty_folder();
    EXPECT_TRUE(file_exists(folder + "/row"));
    std::filesystem::remove(folder + "/row");
    lock.remove_empty_folder();
    EXPECT_FALSE(file_exists(folder));
  }
  make_folders(folder);
  FolderLock again(folder);
  EXPECT_EQ(lock_elsewhere(folder), static_cast<int>(Code::kUsage));
}

TEST(FolderLock, IsFreeAfterItsHolderDied) {
  Scratch scratch;
  pid_t child = fork();
  if (child == 0) {
    new FolderLock(scratch.path());  // never released
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(lock_elsewhere(scratch.path()), 0);
  { FolderLock lock(scratch.path()); }
  EXPECT_EQ(lock_elsewhere(scratch.path()), 0);
}

}  // namespace lehr
