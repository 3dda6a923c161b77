// metrics.jsonl stays well-formed: resumes, repeated steps, kills, full disks.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/track/track.h"
#include "tests/track/helpers.h"

namespace lehr::track {
namespace {

using Json = nlohmann::ordered_json;

Row row(int64_t step, Values values = {{"train.loss", 0.5}}) {
  return {step, step * 32, 1700000000.25, std::move(values)};
}

std::vector<int64_t> steps_of(const std::string& path) {
  std::vector<int64_t> steps;
  for (const std::string& line : lines_of(text_of(path)))
    steps.push_back(Json::parse(line).at("step"));
  return steps;
}

using Steps = std::vector<int64_t>;

std::string whole_line(int64_t step) {
  return fmt::format("{{\"step\":{},\"samples\":{},\"time\":1700000000.250,\"train.loss\":0.5}}\n",
                     step, step * 32);
}

TEST(Jsonl, WritesOneObjectALine) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  auto sink = open_jsonl(path, -1);
  sink->write(row(1, {{"train.loss", 0.1}, {"train.lr", 3e-4}}));
  // in the kernel already, without a flush
  EXPECT_EQ(text_of(path),
            "{\"step\":1,\"samples\":32,\"time\":1700000000.250,\"train.loss\":0.1,\"train.lr\":0."
            "0003}\n");
}

TEST(Jsonl, KeepsEveryDigit) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  const Values values{{"a", 1.0 / 3}, {"b", 5e-324}, {"c", 1.7976931348623157e308}, {"d", -0.1}};
  open_jsonl(path, -1)->write(row(1, values));
  const Json object = Json::parse(text_of(path));
  for (const auto& [name, value] : values) EXPECT_EQ(object.at(name).get<double>(), value);
}

TEST(Jsonl, WritesNullForWhatJsonCannotSay) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  open_jsonl(path, -1)->write(row(1, {{"a", NAN}, {"b", INFINITY}, {"c \"\n\xff", 1}}));
  const Json object = Json::parse(text_of(path));
  EXPECT_TRUE(object.at("a").is_null());
  EXPECT_TRUE(object.at("b").is_null());
  EXPECT_EQ(lines_of(text_of(path)).size(), 1u);
}

TEST(Jsonl, CutsRowsBeyondTheRestoredStep) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  {
    auto sink = open_jsonl(path, -1);
    for (int step = 10; step <= 50; step += 10) sink->write(row(step));
  }
  auto sink = open_jsonl(path, 30);
  EXPECT_EQ(steps_of(path), (Steps{10, 20, 30}));
  sink->write(row(40));
  EXPECT_EQ(steps_of(path), (Steps{10, 20, 30, 40}));
  open_jsonl(path, 0);
  EXPECT_EQ(steps_of(path), Steps{});
}

TEST(Jsonl, JoinsRowsOfOneStep) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  {
    auto sink = open_jsonl(path, -1);
    sink->write(row(1));
    sink->write(row(2, {{"train.loss", 0.123456789}, {"train.loss", 0.4}}));
    sink->write(row(2, {{"validation.accuracy", 0.9}}));
    sink->write(row(2, {{"train.loss", 4}, {"validation.accuracy", 1}}));  // shorter text
    sink->write(row(3));
  }
  EXPECT_EQ(steps_of(path), (Steps{1, 2, 3}));
  Json second = Json::parse(lines_of(text_of(path))[1]);
  EXPECT_EQ(second.at("train.loss"), 4);
  EXPECT_EQ(second.at("validation.accuracy"), 1);
  // also across a resume: the restored step's evaluation was cut, and is repeated
  open_jsonl(path, 2)->write(row(2, {{"validation.loss", 0.7}}));
  EXPECT_EQ(steps_of(path), (Steps{1, 2}));
  second = Json::parse(lines_of(text_of(path))[1]);
  EXPECT_EQ(second.at("train.loss"), 4);
  EXPECT_EQ(second.at("validation.loss"), 0.7);
}

TEST(Jsonl, RefusesToGoBack) {
  Scratch folder;
  auto sink = open_jsonl(folder / "metrics.jsonl", -1);
  sink->write(row(5));
  EXPECT_THROW(sink->write(row(4)), Error);
}

TEST(Jsonl, DropsATornEndWhereverItWasTorn) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  {
    auto sink = open_jsonl(path, -1);
    for (int step = 1; step <= 4; ++step) sink->write(row(step));
  }
  const std::string whole = text_of(path);
  for (size_t size = 0; size <= whole.size(); ++size) {
    set_text(path, whole.substr(0, size));
    open_jsonl(path, 1000)->write(row(9));
    const int64_t lines =
        std::count(whole.begin(), whole.begin() + static_cast<int64_t>(size), '\n');
    Steps expected;
    for (int64_t step = 1; step <= lines; ++step) expected.push_back(step);
    expected.push_back(9);
    ASSERT_EQ(steps_of(path), expected) << "torn at byte " << size;
  }
}

TEST(Jsonl, DropsWhatAPowerCutLeftInside) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  set_text(path,
           "{\"step\":1,\"samples\":1,\"time\":1}\n" + std::string(100, '\0') +
               "\n[1]\n{\"step\":\"x\"}\n{\"step\":2}\n{\"step\":2}\n{\"step\":1}\n{\"step\":3}\n");
  log_through([](const std::string&) {});
  open_jsonl(path, 10);
  log_through(nullptr);
  EXPECT_EQ(steps_of(path), (Steps{1, 2, 3}));
}

TEST(Jsonl, LeavesAGoodFileUntouched) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  open_jsonl(path, -1)->write(row(1));
  const auto before = std::filesystem::last_write_time(path);
  open_jsonl(path, 1);
  EXPECT_EQ(std::filesystem::last_write_time(path), before);
}

// However long a file is: what lies further back than a power cut reaches is neither read nor
// moved.
TEST(Jsonl, ReadsALongFileFromItsEnd) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  std::string front = "no row\n";
  int64_t step = 0;
  while (front.size() < (2 << 20)) front += whole_line(++step);
  const int64_t front_steps = step;
  std::string tail;
  while (tail.size() < (1 << 19)) tail += whole_line(++step);
  const std::string late = whole_line(step + 1) + whole_line(step + 2) + "{\"step\":";
  set_text(path, front + tail + late);
  open_jsonl(path, step);
  EXPECT_EQ(text_of(path), front + tail);
  // a damaged line of the tail goes, whatever is before stays
  set_text(path, front + "damaged\n" + tail + late);
  log_through([](const std::string&) {});
  open_jsonl(path, step)->write(row(step + 1));
  log_through(nullptr);
  EXPECT_EQ(text_of(path), front + tail + whole_line(step + 1));
  // a resume from far back
  open_jsonl(path, 1000);
  EXPECT_TRUE(text_of(path).ends_with(whole_line(1000)));
  EXPECT_LT(text_of(path).size(), front.size() / static_cast<size_t>(front_steps) * 1001);
}

TEST(Jsonl, SurvivesKills) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  int64_t reached = 0;
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      auto sink = open_jsonl(path, reached);
      for (int64_t step = reached + 1;; ++step) {
        sink->write(row(step));
        sink->write(row(step, {{"validation.loss", 1.0 / static_cast<double>(step)}}));
      }
    }
    ::usleep(3000 + 500 * round);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    // a resume goes some rows back, as from a checkpoint
    reached = std::max<int64_t>(0, static_cast<int64_t>(lines_of(text_of(path)).size()) - 5);
    open_jsonl(path, reached);
    const Steps steps = steps_of(path);
    ASSERT_EQ(static_cast<int64_t>(steps.size()), reached);
    for (int64_t i = 0; i < reached; ++i) ASSERT_EQ(steps[static_cast<size_t>(i)], i + 1);
  }
  EXPECT_GT(reached, 0);
}

TEST(Jsonl, KeepsARowThatAFullDiskDoesNotLetGrow) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    auto sink = open_jsonl(path, -1);
    sink->write(row(1));
    sink->write(row(2));
    const std::string before = text_of(path);
    rlimit limit{before.size() + 10, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    int code = 0;
    try {
      sink->write(row(2, {{"validation.accuracy", 0.9}}));
      code |= 1;
    } catch (const Error&) {
    }
    if (text_of(path) != before) code |= 2;
    // once there is room
    limit.rlim_cur = RLIM_INFINITY;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    sink->write(row(2, {{"validation.accuracy", 0.9}}));
    const Json joined = Json::parse(lines_of(text_of(path)).back());
    if (joined.value("validation.accuracy", 0.0) != 0.9 || !joined.contains("train.loss"))
      code |= 4;
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Jsonl, StaysWholeWhenTheDiskIsFull) {
  Scratch folder;
  const std::string path = folder / "metrics.jsonl";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    auto sink = open_jsonl(path, -1);
    try {
      for (int64_t step = 1; step < 1000; ++step) sink->write(row(step));
    } catch (const Error& error) {
      ::_exit(error.code() == Code::kData && error.where() == path ? 0 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const std::string text = text_of(path);
  EXPECT_EQ(text.back(), '\n');
  EXPECT_GT(steps_of(path).size(), 5u);
}

// What a sink gets, and when it fails.
struct Fake {
  bool opens = true, writes = true;
  std::vector<int64_t> steps;
};

class FakeSink final : public Sink {
 public:
  explicit FakeSink(Fake& fake) : fake_(fake) {}
  void write(const Row& row) final {
    if (!fake_.writes) throw Error(Code::kData, "cannot write: No space left on device", "here");
    fake_.steps.push_back(row.step);
  }
  void flush() final {}

 private:
  Fake& fake_;
};

TEST(Trackers, HoldWhatCannotBeWrittenAndTryAgain) {
  static std::vector<std::string> said;
  said.clear();
  log_through([](const std::string& line) { said.push_back(line); });
  Fake broken{.opens = false}, sound;
  Trackers trackers;
  for (Fake* fake : {&broken, &sound})
    trackers.add([fake]() -> std::unique_ptr<Sink> {
      if (!fake->opens) throw Error(Code::kData, "cannot open", "there");
      return std::make_unique<FakeSink>(*fake);
    });
  EXPECT_EQ(said.size(), 1u);
  trackers.write(row(1));
  trackers.write(row(2));
  trackers.flush();
  EXPECT_EQ(said.size(), 1u) << said.back();  // of one cause, once
  EXPECT_EQ(sound.steps, (Steps{1, 2}));
  broken.opens = true, broken.writes = false;
  trackers.write(row(3));
  EXPECT_EQ(said.size(), 1u);  // tried again at a flush
  trackers.flush();
  EXPECT_EQ(said.size(), 2u);
  EXPECT_NE(said.back().find("No space left"), std::string::npos);
  broken.writes = true;
  trackers.flush();
  EXPECT_EQ(broken.steps, (Steps{1, 2, 3}));
  trackers.write(row(4));
  EXPECT_EQ(broken.steps, (Steps{1, 2, 3, 4}));
  broken.writes = false;
  trackers.write(row(5));
  trackers.finish();
  log_through(nullptr);
  EXPECT_EQ(sound.steps, (Steps{1, 2, 3, 4, 5}));
  EXPECT_NE(said.back().find("1 row(s) are lost"), std::string::npos) << said.back();
}

}  // namespace
}  // namespace lehr::track
