// The trace of chosen steps: operators of forward and backward, phases of the loop, on one time
// line.
#include "engine/track/profiler.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/base/log.h"
#include "engine/track/trace.h"
#include "tests/track/helpers.h"

namespace lehr::track {
namespace {

using Json = nlohmann::json;

// What is logged while it lives goes there alone.
class Quiet {
 public:
  Quiet() {
    said.clear();
    log_through([](const std::string& line) { said += line + "\n"; });
  }
  ~Quiet() { log_through(nullptr); }
  static inline std::string said;
};

void take_step(Profiler& profiler, int64_t step) {
  profiler.step_begins(step);
  {
    const auto span = Trace::span("step work");
    at::Tensor w = at::randn({32, 32}).requires_grad_(true);
    at::mm(w, w).relu().sum().backward();
  }
  profiler.step_ends(step);
}

struct Event {
  double begin, end;
};

std::map<std::string, std::vector<Event>> events_of(const std::string& path) {
  std::map<std::string, std::vector<Event>> events;
  const Json document = Json::parse(text_of(path));
  for (const Json& event : document.at("traceEvents"))
    if (event.at("ph") == "X")
      events[event.at("name")].push_back(
          {event.at("ts").get<double>(),
           event.at("ts").get<double>() + event.at("dur").get<double>()});
  return events;
}

TEST(ProfilerTest, RecordsTheChosenStepsAndNoOthers) {
  Quiet quiet;
  Scratch folder;
  Profiler profiler(folder / "trace.json", 3, 2);
  for (int64_t step = 1; step <= 6; ++step) {
    take_step(profiler, step);
    EXPECT_EQ(std::filesystem::exists(folder / "trace.json"), step >= 4);
  }
  auto events = events_of(folder / "trace.json");
  EXPECT_FALSE(events.contains("step 2"));
  EXPECT_EQ(events.at("step 3").size(), 1u);
  EXPECT_EQ(events.at("step 4").size(), 1u);
  EXPECT_FALSE(events.contains("step 5"));
  EXPECT_EQ(events.at("step work").size(), 2u);
  // one forward and two backward products a step
  EXPECT_EQ(events.at("aten::mm").size(), 6u);
  EXPECT_TRUE(events.contains("aten::relu"));
  // on one time line: every product lies in one of the steps, to the microseconds of two clocks
  for (const Event& mm : events.at("aten::mm")) {
    bool inside = false;
    for (const char* name : {"step 3", "step 4"}) {
      const Event& step = events.at(name)[0];
      inside |= step.begin - 100 <= mm.begin && mm.end <= step.end + 100;
    }
    EXPECT_TRUE(inside) << mm.begin << ".." << mm.end << " not in " << events.at("step 3")[0].begin
                        << ".." << events.at("step 4")[0].end;
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "trace.json.part"));
}

TEST(ProfilerTest, WritesWhatThereIsWhenTrainingEnds) {
  Quiet quiet;
  Scratch folder;
  {
    Profiler profiler(folder / "trace.json", 2, 100);
    for (int64_t step = 1; step <= 3; ++step) take_step(profiler, step);
  }
  EXPECT_EQ(events_of(folder / "trace.json").at("step work").size(), 2u);
}

TEST(ProfilerTest, GoesOnWhenTheFileCannotBeWritten) {
  Quiet quiet;
  Scratch folder;
  Profiler profiler(folder / "absent/trace.json", 1, 1);
  for (int64_t step = 1; step <= 2; ++step) take_step(profiler, step);
  EXPECT_NE(quiet.said.find("the profile could not be written: " + folder / "absent/trace.json"),
            std::string::npos)
      << quiet.said;
  EXPECT_FALSE(Trace::on());
}

TEST(ProfilerTest, IsOffUnlessEnabled) {
  Scratch folder;
  ProfilingFields fields;
  auto off = make_profiler(fields, folder.path());
  for (int64_t step = 1; step <= 20; ++step) take_step(*off, step);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_FALSE(Trace::on());
  fields.enabled = true;
  fields.first_step = 2;
  Quiet quiet;
  auto on = make_profiler(fields, folder.path());
  for (int64_t step = 1; step <= 5; ++step) take_step(*on, step);
  EXPECT_TRUE(std::filesystem::exists(folder / "trace.json"));
}

}  // namespace
}  // namespace lehr::track
