// Event files as TensorBoard's own reader sees them, after resumes and kills.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/base/log.h"
#include "engine/track/event_file.h"
#include "engine/track/track.h"
#include "tests/track/helpers.h"

namespace lehr::track {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

void write_steps(const std::string& folder, int64_t resume_step, int64_t first, int64_t last,
                 double value) {
  auto sink = open_tensorboard(folder, resume_step);
  for (int64_t step = first; step <= last; ++step)
    sink->write({step,
                 step,
                 1.7e9 + static_cast<double>(step),
                 {{"train.loss", value}, {"validation.top.k", 2 * value}}});
}

std::vector<std::string> files_of(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

Json points(std::vector<std::pair<int64_t, double>> list) {
  Json out = Json::array();
  for (const auto& [step, value] : list) out.push_back({step, value});
  return out;
}

// Steps in the files themselves, without TensorBoard's purging.
std::vector<int64_t> raw_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  for (const std::string& file : files_of(folder)) {
    const std::string text = text_of(file);
    RecordReader reader(text);
    while (reader.next())
      if (reader.data().find("train/loss") != std::string_view::npos)
        steps.push_back(step_of_event(reader.data()));
    EXPECT_FALSE(reader.damaged());
  }
  return steps;
}

TEST(TensorBoard, ReadsWhatWasWritten) {
  if (!has_python()) GTEST_SKIP() << "there is no " << python() << ": run scripts/setup";
  Scratch scratch;
  write_steps(scratch / "root/plain", -1, 0, 3, 0.5);

  write_steps(scratch / "root/resumed", -1, 1, 6, 0.5);
  write_steps(scratch / "root/resumed", 4, 5, 8, 0.25);  // 5 and 6 are cut and come again
  write_steps(scratch / "root/resumed", 7, 8, 9, 0.125);
  EXPECT_EQ(raw_steps(scratch / "root/resumed"), (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(files_of(scratch / "root/resumed").size(), 3u);

  write_steps(scratch / "root/from_the_start", -1, 1, 6, 0.5);
  write_steps(scratch / "root/from_the_start", 0, 1, 2,
              0.25);  // killed before its first checkpoint

  write_steps(scratch / "root/torn", -1, 1, 4, 0.5);
  const std::string torn = files_of(scratch / "root/torn").front();
  fs::resize_file(torn, fs::file_size(torn) - 7);
  log_through([](const std::string&) {});
  write_steps(scratch / "root/torn", 3, 4, 5, 0.25);
  log_through(nullptr);

  // a reader that has seen steps 1..6 meets the files of a resume after step 4
  write_steps(scratch / "root/live", -1, 1, 6, 0.5);
  fs::copy(scratch / "root/live", scratch / "later");
  write_steps(scratch / "later", 4, 5, 7, 0.25);
  fs::rename(scratch / "later", scratch / "root/live/later");

  auto sink = open_tensorboard(scratch / "root/odd", -1);
  sink->write({1, 1, 1.7e9, {{"loss", 1e300}, {"a.b", NAN}}});
  sink->write({2, 1, 1.7e9, {}});

  const std::string command = python() + " " LEHR_SOURCE_DIR "/tests/track/tensorboard_peer.py " +
                              scratch / "root" + " 2>" + scratch / "errors" + " >" +
                              scratch / "out";
  ASSERT_EQ(std::system(command.c_str()), 0) << text_of(scratch / "errors");
  const Json read = Json::parse(text_of(scratch / "out"));
  EXPECT_EQ(read.at("plain"),
            (Json{{"train/loss", points({{0, .5}, {1, .5}, {2, .5}, {3, .5}})},
                  {"validation/top.k", points({{0, 1}, {1, 1}, {2, 1}, {3, 1}})}}));
  EXPECT_EQ(read.at("resumed").at("train/loss"), points({{1, .5},
                                                         {2, .5},
                                                         {3, .5},
                                                         {4, .5},
                                                         {5, .25},
                                                         {6, .25},
                                                         {7, .25},
                                                         {8, .125},
                                                         {9, .125}}));
  EXPECT_EQ(read.at("from_the_start").at("train/loss"), points({{1, .25}, {2, .25}}));
  EXPECT_EQ(read.at("torn").at("train/loss"),
            points({{1, .5}, {2, .5}, {3, .5}, {4, .25}, {5, .25}}));
  EXPECT_EQ(read.at("live").at("train/loss"),
            points({{1, .5}, {2, .5}, {3, .5}, {4, .5}, {5, .25}, {6, .25}, {7, .25}}));
  EXPECT_EQ(read.at("odd"), Json::parse(R"({"loss": [[1, "inf"]], "a/b": [[1, "nan"]]})"));
}

TEST(TensorBoard, CutsATornEndWhereverItWasTorn) {
  Scratch scratch;
  const std::string folder = scratch / "events";
  write_steps(folder, -1, 1, 2, 0.5);
  const std::string file = files_of(folder).front(), whole = text_of(file);
  log_through([](const std::string&) {});
  for (size_t size = 0; size <= whole.size(); ++size) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    set_text(file, whole.substr(0, size));
    open_tensorboard(folder, 1);
    const std::vector<int64_t> steps = raw_steps(folder);  // expects that nothing is damaged
    EXPECT_LE(steps.size(), 1u) << size;
    for (const std::string& path : files_of(folder))
      EXPECT_NE(path.find("tfevents"), std::string::npos) << "left behind: " << path;
  }
  log_through(nullptr);
}

TEST(TensorBoard, ReadsALongFileFromItsEnd) {
  Scratch scratch;
  const std::string folder = scratch / "events";
  write_steps(folder, -1, 1, 40000, 0.5);
  const std::string file = files_of(folder).front();
  std::string text = text_of(file);
  ASSERT_GT(text.size(), 2u << 20);
  text[100] = static_cast<char>(text[100] ^ 1);  // far from the end
  set_text(file, text);
  log_through([](const std::string& line) { ADD_FAILURE() << line; });
  open_tensorboard(folder, 39990);
  log_through(nullptr);
  const std::string kept = text_of(file);
  EXPECT_EQ(kept, text.substr(0, kept.size()));
  const size_t first = first_record(std::string_view(kept).substr(kept.size() - 1000));
  RecordReader reader(std::string_view(kept).substr(kept.size() - 1000 + first));
  int64_t last = 0;
  while (reader.next()) last = step_of_event(reader.data());
  EXPECT_EQ(last, 39990);
  EXPECT_FALSE(reader.damaged());
  text[100] = static_cast<char>(text[100] ^ 1);
  set_text(file, text);
  open_tensorboard(folder, 3);  // from far back
  EXPECT_EQ(raw_steps(folder), (std::vector<int64_t>{1, 2, 3}));
}

TEST(TensorBoard, NamesItsFilesInTheOrderOfTheirMaking) {
  Scratch scratch;
  std::vector<std::string> made;
  for (int i = 0; i < 4; ++i) {
    write_steps(scratch.path(), i, i + 1, i + 1, 0.5);
    const auto files = files_of(scratch.path());
    ASSERT_EQ(files.size(), made.size() + 1);
    EXPECT_TRUE(std::equal(made.begin(), made.end(), files.begin()));
    made = files;
  }
}

}  // namespace
}  // namespace lehr::track
