// Spans become Chrome trace events while a trace runs, and nothing otherwise.
#include "engine/track/trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <thread>

namespace lehr::track {
namespace {

using Json = nlohmann::json;

TEST(Trace, RecordsSpansOfAllThreads) {
  Trace::start();
  const int64_t origin = Trace::now_ns();
  {
    const auto outer = Trace::span("step \"1\"");
    const auto inner = Trace::span("forward");
  }
  std::thread([] { const auto span = Trace::span("load"); }).join();
  const Json document = Json::parse(Trace::document(Trace::stop(origin)));
  const Json& events = document.at("traceEvents");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].at("name"), "forward");
  EXPECT_EQ(events[1].at("name"), "step \"1\"");
  std::set<int64_t> threads;
  for (const Json& event : events) {
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_GE(event.at("ts").get<double>(), 0);
    EXPECT_GE(event.at("dur").get<double>(), 0);
    threads.insert(event.at("tid").get<int64_t>());
  }
  EXPECT_EQ(threads.size(), 2u);
  EXPECT_GE(events[1].at("dur"), events[0].at("dur"));
}

TEST(Trace, RecordsNothingWhenOff) {
  { const auto span = Trace::span("before"); }
  Trace::start();
  EXPECT_EQ(Trace::stop(0), "");
  { const auto span = Trace::span("after"); }
  EXPECT_EQ(Trace::stop(0), "");
  EXPECT_EQ(Json::parse(Trace::document("")).at("traceEvents").size(), 0u);
}

TEST(Trace, DropsASpanThatOutlivesIt) {
  Trace::start();
  {
    const auto span = Trace::span("late");
    EXPECT_EQ(Trace::stop(0), "");
  }
  Trace::start();
  EXPECT_EQ(Trace::stop(0), "");
}

}  // namespace
}  // namespace lehr::track
