// What a person sees: a small screen of our own reads what goes to a pseudo-terminal.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <thread>

#include "engine/track/track.h"
#include "tests/track/helpers.h"

namespace lehr::track {
namespace {

Progress some_progress(int64_t step) {
  Progress p;
  p.step = step;
  p.total_steps = 1000;
  p.epoch = 2;
  p.epochs_total = 10;
  p.samples_per_s = 4512.3;
  p.loss = 0.43217;
  p.lr = 3e-4;
  p.seconds_left = 80;
  p.memory_bytes = 350000000;
  return p;
}

// Lines as they stand after carriage returns, erasures and colours.
std::vector<std::string> screen_of(const std::string& bytes, bool* coloured = nullptr) {
  std::vector<std::string> lines{""};
  size_t column = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == '\x1b') {
      const size_t end = bytes.find_first_of("mK", i);
      if (bytes.substr(i, end - i + 1) == "\x1b[2K")
        lines.back().clear();
      else if (coloured)
        *coloured = true;
      i = end;
    } else if (bytes[i] == '\r') {
      column = 0;
    } else if (bytes[i] == '\n') {
      lines.emplace_back();
      column = 0;
    } else {
      lines.back().resize(std::max(lines.back().size(), column + 1), ' ');
      lines.back()[column++] = bytes[i];
    }
  }
  return lines;
}

class Screen {
 public:
  explicit Screen(unsigned short columns) {
    winsize size{24, columns, 0, 0};
    EXPECT_EQ(::openpty(&ours_, &theirs_, nullptr, nullptr, &size), 0);
  }
  ~Screen() {
    ::close(ours_);
    if (theirs_ >= 0) ::close(theirs_);
  }
  int fd() const { return theirs_; }
  void resize(unsigned short columns) {
    winsize size{24, columns, 0, 0};
    ::ioctl(theirs_, TIOCSWINSZ, &size);
  }
  void hang_up() { ::close(ours_), ours_ = ::open("/dev/null", O_RDONLY); }
  std::string bytes() {
    for (pollfd p{ours_, POLLIN, 0}; ::poll(&p, 1, 30) == 1 && (p.revents & POLLIN);) {
      char buffer[4096];
      const ssize_t n = ::read(ours_, buffer, sizeof buffer);
      if (n <= 0) break;
      all_.append(buffer, static_cast<size_t>(n));
    }
    return all_;
  }

 private:
  int ours_ = -1, theirs_ = -1;
  std::string all_;
};

class TerminalTest : public testing::Test {
 protected:
  void SetUp() override {
    ::setenv("TERM", "xterm", 1);
    ::setenv("LC_ALL", "C", 1);
    ::unsetenv("NO_COLOR");
  }
};

TEST_F(TerminalTest, KeepsOneLiveLineBelowWhatIsPrinted) {
  Screen screen(120);
  {
    Terminal terminal(screen.fd());
    EXPECT_TRUE(terminal.is_live());
    terminal.progress(some_progress(10));
    terminal.print("saved checkpoint 1");
    terminal.print("saved checkpoint 2");
    terminal.table({"metric", "value"}, {{"accuracy", "0.9"}, {"f1_macro", "0.85"}});
  }
  const auto lines = screen_of(screen.bytes());
  const std::string live =
      "----------------  step 10/1000  1%  epoch 3/10  4,512 samples/s  1m20s left  loss 0.4322  "
      "lr "
      "0.0003  350 MB";
  EXPECT_EQ(lines,
            (std::vector<std::string>{"saved checkpoint 1", "saved checkpoint 2", "metric    value",
                                      "---------------", "accuracy    0.9", "f1_macro   0.85",
                                      live.substr(0, 119), ""}));
}

TEST_F(TerminalTest, RedrawsTenTimesASecondAndAtTheEnd) {
  Screen screen(100);
  Terminal terminal(screen.fd());
  for (int64_t step = 1; step <= 1000; ++step) terminal.progress(some_progress(step));
  const std::string bytes = screen.bytes();
  size_t draws = 0;
  for (size_t at = bytes.find("step "); at != std::string::npos; at = bytes.find("step ", at + 1))
    ++draws;
  EXPECT_GE(draws, 2u);
  EXPECT_LE(draws, 5u);
  EXPECT_NE(screen_of(bytes).back().find("step 1000/1000  100%"), std::string::npos);
}

TEST_F(TerminalTest, DropsTheLeastImportantOnANarrowScreen) {
  for (unsigned short columns : {200, 100, 80, 60, 40, 20, 10, 3, 2}) {
    Screen screen(columns);
    Terminal terminal(screen.fd());
    terminal.progress(some_progress(10));
    const std::string line = screen_of(screen.bytes()).back();
    EXPECT_LT(line.size(), columns);
    EXPECT_TRUE(columns < 40 || line.find("loss 0.4322") != std::string::npos) << line;
    EXPECT_TRUE(columns < 20 || line.find("step 10/1000") != std::string::npos) << line;
  }
}

TEST_F(TerminalTest, FollowsTheWidthOfTheScreen) {
  Screen screen(100);
  Terminal terminal(screen.fd());
  terminal.progress(some_progress(10));
  screen.resize(30);
  terminal.progress(some_progress(1000));
  EXPECT_LT(screen_of(screen.bytes()).back().size(), 30u);
}

TEST_F(TerminalTest, ColoursUnlessAskedNotTo) {
  bool coloured = false;
  {
    Screen screen(100);
    Terminal(screen.fd()).progress(some_progress(10));
    screen_of(screen.bytes(), &coloured);
    EXPECT_TRUE(coloured);
  }
  ::setenv("NO_COLOR", "1", 1);
  coloured = false;
  Screen screen(100);
  Terminal terminal(screen.fd());
  terminal.progress(some_progress(10));
  terminal.table({"a"}, {{"1"}});
  screen_of(screen.bytes(), &coloured);
  EXPECT_FALSE(coloured);
}

TEST_F(TerminalTest, DrawsInUnicodeWhereTheLocaleHasIt) {
  ::setenv("LC_ALL", "C.UTF-8", 1);
  Screen screen(120);
  Terminal terminal(screen.fd());
  terminal.progress(some_progress(500));
  EXPECT_NE(screen.bytes().find("━━━━━━━━╌"), std::string::npos);
}

TEST_F(TerminalTest, IsPlainOnADumbTerminal) {
  ::setenv("TERM", "dumb", 1);
  Screen screen(100);
  Terminal terminal(screen.fd());
  EXPECT_FALSE(terminal.is_live());
  terminal.progress(some_progress(10));
  EXPECT_EQ(screen.bytes().find('\x1b'), std::string::npos);
}

TEST_F(TerminalTest, DoesNotLetDataSteerTheScreen) {
  Screen screen(100);
  Terminal terminal(screen.fd());
  terminal.print("file \x1b]0;title\x07 \x1b[2J end");
  terminal.table({"a\rb"}, {{"\x1b[31m"}});
  EXPECT_EQ(screen.bytes().find("\x1b[2J"), std::string::npos);
  EXPECT_EQ(screen.bytes().find("\x1b]"), std::string::npos);
  EXPECT_EQ(screen.bytes().find("\x1b[31m"), std::string::npos);
}

TEST_F(TerminalTest, GoesOnWhenTheScreenIsGone) {
  Screen screen(100);
  Terminal terminal(screen.fd());
  screen.hang_up();
  terminal.print("nobody reads this");
  terminal.progress(some_progress(1000));
}

class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe(ends_), 0); }
  ~Pipe() { ::close(ends_[0]); }
  int fd() const { return ends_[1]; }
  std::string all() {
    ::close(ends_[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = ::read(ends_[0], buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<size_t>(n));
    return text;
  }

 private:
  int ends_[2];
};

TEST_F(TerminalTest, WritesPlainLinesIntoAPipe) {
  Pipe pipe;
  {
    Terminal terminal(pipe.fd());
    EXPECT_FALSE(terminal.is_live());
    for (int64_t step = 1; step <= 1000; ++step) terminal.progress(some_progress(step));
    terminal.print("done");
  }
  EXPECT_EQ(lines_of(pipe.all()),
            (std::vector<std::string>{"step 1/1000  0%  epoch 3/10  4,512 samples/s  1m20s left  "
                                      "loss 0.4322  lr 0.0003  350 MB",
                                      "step 1000/1000  100%  epoch 3/10  4,512 samples/s  1m20s "
                                      "left  loss 0.4322  lr 0.0003  350 MB",
                                      "done"}));
}

TEST_F(TerminalTest, WritesPlainLinesAtIntervals) {
  Pipe pipe;
  {
    Terminal terminal(pipe.fd(), 0.02);
    for (int64_t step = 1; step <= 10; ++step) {
      terminal.progress(some_progress(step));
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  const size_t lines = lines_of(pipe.all()).size();
  EXPECT_GE(lines, 3u);
  EXPECT_LE(lines, 6u);
}

TEST_F(TerminalTest, LeavesOutWhatIsNotKnown) {
  Pipe pipe;
  {
    Terminal terminal(pipe.fd());
    Progress p;
    p.step = 3;
    terminal.progress(p);
  }
  EXPECT_EQ(pipe.all(), "step 3\n");
}

TEST_F(TerminalTest, KeepsLinesOfSeveralThreadsWhole) {
  Screen screen(100);
  {
    Terminal terminal(screen.fd());
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&terminal, t] {
        for (int i = 0; i < 20; ++i) {
          terminal.progress(some_progress(i));
          terminal.print("thread " + std::to_string(t) + " line " + std::to_string(i) + ".");
        }
      });
    for (auto& thread : threads) thread.join();
  }
  size_t whole = 0;
  for (const std::string& line : screen_of(screen.bytes()))
    whole += line.starts_with("thread ") && line.ends_with(".") && line.size() <= 17;
  EXPECT_EQ(whole, 80u);
}

}  // namespace
}  // namespace lehr::track
