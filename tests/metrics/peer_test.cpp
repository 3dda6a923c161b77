// Every metric against scikit-learn, in one pass and merged from batches and ranks cut at random.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/metrics/metrics.h"

namespace lehr::metrics {
namespace {

using Json = nlohmann::json;

const std::string kPython = LEHR_SOURCE_DIR "/.deps/venv/bin/python";

// The peer runs once for all tests of this file. A peer that fails is a failure, not a skip.
const Json& cases() {
  static const Json all = [] {
    const std::string file = LEHR_BINARY_DIR "/sklearn_peer.json";
    const std::string command =
        kPython + " " LEHR_SOURCE_DIR "/tests/metrics/sklearn_peer.py " + file;
    if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
    return Json::parse(std::ifstream(file)).at("cases");
  }();
  return all;
}

bool has_python() { return std::ifstream(kPython).good(); }

struct Case {
  explicit Case(const Json& json) : json(json) {
    context.classes = json.at("classes");
    context.positive = json.at("positive");
    context.bins = json.at("bins");
    const int64_t count = static_cast<int64_t>(json.at("targets").size());
    scores = matrix(json.at("scores"), count);
    if (context.classes > 0) {
      targets = at::empty({count}, at::kLong);
      for (int64_t i = 0; i < count; ++i) targets[i] = json.at("targets")[i].get<int64_t>();
    } else {
      targets = matrix(json.at("targets"), count);
    }
    if (json.at("float32")) scores = scores.to(at::kFloat);
  }
  static at::Tensor matrix(const Json& rows, int64_t count) {
    std::vector<double> flat;
    for (const Json& row : rows)
      for (const Json& value : row) flat.push_back(value);
    return at::tensor(flat, at::kDouble).reshape({count, -1});
  }
  std::unique_ptr<Metric> make(const std::string& name) const {
    return std::move(make_metrics({name}, context).front());
  }
  const Json& json;
  MetricContext context;
  at::Tensor scores, targets;
};

void expect_equal(const Metric& metric, const Json& expected, const std::string& what) {
  const std::vector<Result> results = metric.compute();
  ASSERT_EQ(results.size(), 1u) << what;
  if (expected.is_null()) {
    EXPECT_FALSE(results[0].value) << what << " gave " << *results[0].value;
    EXPECT_FALSE(results[0].why.empty()) << what;
    return;
  }
  ASSERT_TRUE(results[0].value) << what << ": " << results[0].why;
  const double want = expected;
  EXPECT_NEAR(*results[0].value, want, 1e-9 * std::max(1.0, std::abs(want))) << what;
  // small numbers must agree in their digits too
  EXPECT_NEAR(*results[0].value, want, 1e-9 * std::abs(want) + 1e-14) << what;
}

TEST(Peer, AgreesWithScikitLearn) {
  if (!has_python()) GTEST_SKIP() << "there is no " << kPython << ": run scripts/setup";
  int compared = 0;
  for (const Json& json : cases()) {
    const Case c(json);
    for (const auto& [name, expected] : json.at("expected").items()) {
      auto metric = c.make(name);
      metric->update(c.scores, c.targets);
      expect_equal(*metric, expected, json.at("name").get<std::string>() + ": " + name);
      ++compared;
    }
    if (c.context.classes > 0) {
      auto confusion = c.make("confusion");
      confusion->update(c.scores, c.targets);
      EXPECT_EQ(confusion->matrix(), json.at("matrix").get<Matrix>()) << json.at("name");
    }
  }
  EXPECT_GT(compared, 500);
}

// Ranks with random shares, each in random batches, states concatenated in random order.
TEST(Peer, MergesToTheSinglePass) {
  if (!has_python()) GTEST_SKIP() << "there is no " << kPython << ": run scripts/setup";
  std::mt19937 random(7);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  for (const Json& json : cases()) {
    const Case c(json);
    const int64_t count = c.scores.size(0);
    StringList names{"confusion"};
    if (c.context.classes == 0) names.clear();
    for (const auto& [name, expected] : json.at("expected").items()) names.push_back(name);
    for (const std::string& name : names) {
      auto whole = c.make(name);
      whole->update(c.scores, c.targets);
      std::vector<at::Tensor> states;
      int64_t begin = 0;
      for (int rank = 0; rank < 4; ++rank) {
        auto part = c.make(name);
        const int64_t end = rank == 3 ? count : begin + below(count - begin + 1);
        while (begin < end) {
          const int64_t size = 1 + below(end - begin);
          part->update(c.scores.narrow(0, begin, size), c.targets.narrow(0, begin, size));
          begin += size;
        }
        states.push_back(part->state());
      }
      std::shuffle(states.begin(), states.end(), random);
      auto merged = c.make(name);
      merged->merge(at::cat(states));
      EXPECT_EQ(merged->matrix(), whole->matrix());
      if (name == "confusion") continue;
      const Result a = merged->compute().at(0), b = whole->compute().at(0);
      EXPECT_EQ(a.why, b.why);
      ASSERT_EQ(a.value.has_value(), b.value.has_value());
      // not only near: double-double sums round to the same double; r2 far from zero cancels some
      const double tolerance = name == "r2" ? 1e-12 : 1e-15;
      EXPECT_NEAR(a.value.value_or(0), b.value.value_or(0),
                  tolerance * std::max(1.0, std::abs(b.value.value_or(0))))
          << json.at("name") << ": " << name;
    }
  }
}

}  // namespace
}  // namespace lehr::metrics
