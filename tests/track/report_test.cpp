// report.html: parses, holds the curves and the recipe, escapes what it shows, needs nothing else.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/track/svg.h"
#include "engine/track/track.h"
#include "tests/track/helpers.h"

namespace lehr::track {
namespace {

using Json = nlohmann::json;

std::string metrics_of_a_run(const std::string& path) {
  auto sink = open_jsonl(path, -1);
  for (int64_t step = 1; step <= 5000; ++step) {
    Values values{{"train.loss", step == 2500 ? NAN : 1.0 / static_cast<double>(step)},
                  {"train.lr", 1e-3}};
    if (step % 1000 == 0) {
      values.emplace_back("validation.loss", 0.5);
      values.emplace_back("validation.accuracy", static_cast<double>(step) / 1e4);
    }
    sink->write({step, step * 32, 1.7e9, values});
  }
  return path;
}

TEST(Report, IsOnePageWithCurvesAndTheRecipe) {
  if (!has_python()) GTEST_SKIP() << "there is no " << python() << ": run scripts/setup";
  Scratch folder;
  Report report;
  report.title = "runs/<one> & \"two\"";
  report.recipe_yaml = "model:\n  name: cnn  # <script>alert(1)</script> http is no address\n";
  report.summary_json =
      R"({"steps": 5000, "test": {"accuracy": 0.915, "roc_auc": {"none": "one class only"}},
          "confusion": [["", "cat", "dog"], ["cat", 7, 1], ["dog", 2, 9]]})";
  report.metrics_path = metrics_of_a_run(folder / "metrics.jsonl");
  write_report(folder / "report.html", report);
  const std::string command = python() + " " LEHR_SOURCE_DIR "/tests/track/report_peer.py " +
                              folder / "report.html" + " >" + folder / "out 2>" + folder / "errors";
  ASSERT_EQ(std::system(command.c_str()), 0) << text_of(folder / "errors");
  const Json page = Json::parse(text_of(folder / "out"));
  EXPECT_EQ(page.at("text").at("h1"), report.title);
  EXPECT_EQ(page.at("text").at("pre"), report.recipe_yaml);
  // loss (train and validation), lr, accuracy
  EXPECT_EQ(page.at("tags").at("svg"), 3);
  const std::vector<int> lines = page.at("lines");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_GT(lines[0], 300);  // thinned
  EXPECT_LT(lines[0], 1000);
  EXPECT_EQ(lines[1], 5);
  EXPECT_EQ(lines[3], 5);
  EXPECT_EQ(page.at("tags").at("table"), 2);
  const std::string cells = page.at("text").at("td");
  EXPECT_NE(cells.find("one class only"), std::string::npos);
  EXPECT_NE(cells.find("dog"), std::string::npos);
}

TEST(Report, IsMadeWithoutMetricsOrSummary) {
  Scratch folder;
  set_text(folder / "torn.jsonl", "{\"step\":1,\"train.loss\":null}\n{\"step\":2,\"tra");
  for (const std::string& metrics : {std::string(), folder / "absent", folder / "torn.jsonl"}) {
    write_report(folder / "report.html", {"run", "a: 1\n", "not json", metrics});
    EXPECT_NE(text_of(folder / "report.html").find("</html>"), std::string::npos);
  }
}

TEST(Chart, KeepsASpikeWhenThinning) {
  Series series{"loss", {}};
  for (int i = 0; i < 100000; ++i) series.points.emplace_back(i, i == 77777 ? 1000 : 1);
  const std::string svg = line_chart("loss", {series});
  EXPECT_LT(svg.size(), 20000u);
  EXPECT_NE(svg.find("1000"), std::string::npos);  // a tick of its height
  // the top of the drawing is reached once: up, and down again
  const std::string top = " 19.4";
  const size_t first = svg.find(top, svg.find("class=\"line"));
  EXPECT_NE(first, std::string::npos);
}

TEST(Chart, DrawsWhatHasNoRange) {
  for (const std::vector<std::pair<double, double>>& points :
       {std::vector<std::pair<double, double>>{},
        {{1, 5}},
        {{1, 0}, {2, 0}},
        {{1, NAN}},
        {{1, 1e300}, {2, -1e300}}}) {
    const std::string svg = line_chart("t", {{"a", points}});
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
    EXPECT_LT(svg.size(), 10000u);
  }
}

}  // namespace
}  // namespace lehr::track
