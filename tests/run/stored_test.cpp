// What earlier releases stored is read by this one: of each a small run, cut at its first
// checkpoint, and the artefact of the same run at its end, in data/stored-<release>.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

using nlohmann::json;

class Stored : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string from = LEHR_SOURCE_DIR "/tests/run/data/stored-" + GetParam();
    ASSERT_EQ(shell("cp -r '" + from + "/.' .", scratch.path).code, 0);
  }
  Scratch scratch;
};

// The manifest of an artefact over another file of that name.
std::string with_file(std::string manifest, const std::string& name, const std::string& content) {
  const std::string key = "{\"name\":\"" + name + "\",\"bytes\":";
  const size_t begin = manifest.find(key), end = manifest.find('}', begin);
  manifest.replace(
      begin, end - begin,
      key + std::to_string(content.size()) + ",\"sha256\":\"" + sha256(content) + "\"");
  const size_t digest = std::string("{\"sha256\": \"").size();
  manifest.replace(digest, 64, 64, '0');
  return manifest.replace(digest, 64, sha256(manifest));
}

TEST_P(Stored, RunIsInspectedExportedAndContinued) {
  EXPECT_EQ(lehr({"inspect", "run"}, scratch.path).code, 0);
  EXPECT_EQ(lehr({"inspect", "run/checkpoints/step-00000003"}, scratch.path).code, 0);
  const std::vector<std::string> data{"--set", "data.train_file=train.csv",
                                      "--set", "data.validation_file=validation.csv",
                                      "--set", "data.test_file=test.csv"};
  std::vector<std::string> words{"export", "run", "--output", "of-step-3"};
  words.insert(words.end(), data.begin(), data.end());
  Outcome outcome = lehr(words, scratch.path);
  ASSERT_EQ(outcome.code, 0) << outcome.out;

  // the same recipe as a file of today: what its fields take now is another thing
  std::string recipe = scratch.read("run/recipe.yaml");
  for (const auto& [then, now] : {std::pair{"time_limit: 500", "time_limit: 500s"},
                                  std::pair{"max_time: 3ep", "max_time: null"}}) {
    ASSERT_NE(recipe.find(then), std::string::npos);
    recipe.replace(recipe.find(then), std::string(then).size(), now);
  }
  scratch.write("small.yaml", recipe);
  // perhaps of another build, on another machine
  outcome =
      lehr({"train", "small.yaml", "--run", "run", "--allow-approximate-resume"}, scratch.path);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("continuing after step 3"), std::string::npos) << outcome.out;
  const auto then = json::parse(scratch.read("artefact/metrics.json")),
             now = json::parse(scratch.read("run/metrics.json"));
  for (const char* name : {"loss", "rmse", "mae", "r2"})
    EXPECT_NEAR(now["test"][name].get<double>(), then["test"][name].get<double>(), 1e-4) << name;

  // the artefact that was stored, but for its TorchScript archive, which is no file to keep
  const std::string archive = scratch.read("run/artefact/model.pt");
  scratch.write("artefact/model.pt", archive);
  scratch.write("artefact/MANIFEST.json",
                with_file(scratch.read("artefact/MANIFEST.json"), "model.pt", archive));
  EXPECT_EQ(lehr({"inspect", "artefact"}, scratch.path).code, 0);
  outcome = lehr({"evaluate", "artefact", "--data", "test.csv", "--json"}, scratch.path);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto figures = json::parse(outcome.out);
  for (const char* name : {"rmse", "mae", "r2"})
    EXPECT_NEAR(figures[name].get<double>(), then["test"][name].get<double>(), 1e-4) << name;
  outcome = lehr({"predict", "artefact", "--input", "test.csv", "--output", "p.csv"}, scratch.path);
  EXPECT_EQ(outcome.code, 0) << outcome.out;
}

INSTANTIATE_TEST_SUITE_P(Releases, Stored, ::testing::Values("0.1"));

}  // namespace
}  // namespace lehr::testing
