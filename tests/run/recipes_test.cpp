// Every shipped recipe: an editor's validator takes it, `lehr check` finds no mistake, it trains a
// few steps, and the generated reference page is the one in the folder.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "tests/recipe/yaml_json.h"
#include "tests/run/program.h"

namespace lehr::testing {

static const std::string kSource = LEHR_SOURCE_DIR;
static const std::string kRecipes = kSource + "/recipes";

class Shipped : public ::testing::TestWithParam<std::string> {
 protected:
  std::string path() const { return kRecipes + "/" + GetParam() + ".yaml"; }
  // the data sets that the head names are there
  bool has_data() const {
    const std::string text = read_file(path());
    const std::string key = "# data: scripts/data ";
    const size_t begin = text.find(key) + key.size();
    std::istringstream names(text.substr(begin, text.find('\n', begin) - begin));
    for (std::string name; names >> name;)
      if (!file_exists(kSource + "/.data/" + name)) return false;
    return true;
  }
  Scratch scratch;
};

TEST_P(Shipped, IsAcceptedByAThirdPartyValidator) {
  const std::string python = kSource + "/.deps/venv/bin/python";
  if (!file_exists(python)) GTEST_SKIP() << "no Python peer: run scripts/setup";
  scratch.write("schema.json", lehr({"schema"}, scratch.path).out);
  auto document = recipe::yaml_as_json(read_file(path()));
  nlohmann::json cases = {{{"name", GetParam()}, {"valid", true}, {"document", document}}};
  document["optimizer"]["learning_rate"] = 1;
  cases.push_back({{"name", "a mistake"}, {"valid", false}, {"document", document}});
  scratch.write("cases.json", cases.dump());
  const auto verdict = shell(
      python + " " + kSource + "/tests/recipe/validate.py schema.json cases.json", scratch.path);
  EXPECT_EQ(verdict.code, 0) << verdict.out;
}

TEST_P(Shipped, ChecksWithoutMistakes) {
  if (!has_data()) GTEST_SKIP() << "its data set is missing: scripts/data fetches it";
  const Outcome checked = lehr({"check", path()}, scratch.path);
  EXPECT_EQ(checked.code, 0) << checked.out;
}

TEST_P(Shipped, TrainsAFewSteps) {
  if (!has_data()) GTEST_SKIP() << "its data set is missing: scripts/data fetches it";
  if (GetParam() == "fashion_mnist_resnet18")
    GTEST_SKIP() << "stated for one GPU, not yet run there";
  std::vector<std::string> words = {"train", path(), "--run", "run"};
  std::vector<std::string> overrides = {"training.max_steps=3", "validation.interval=0",
                                        "metrics.log_interval=1"};
  if (read_file(path()).find("source: text") != std::string::npos ||
      GetParam() == "shakespeare_char_gpu")  // language models, at a toy size
    overrides = {"training.max_steps=20",   "training.global_batch_size=4",
                 "training.precision=fp32", "lr_scheduler.warmup_steps=2",
                 "validation.interval=0",   "validation.batch_size=64",
                 "metrics.log_interval=1",  "data.context=32",
                 "model.layers=2",          "model.heads=2",
                 "model.width=32"};
  if (GetParam() == "debian_gpt2_bpe") {
    overrides.push_back("training.micro_batch_size=2");
    overrides.push_back("data.validation_fraction=0.001");
  }
  for (const auto& override : overrides) words.insert(words.end(), {"--set", override});
  const Outcome trained = lehr(words, scratch.path);
  ASSERT_EQ(trained.code, 0) << trained.out;
  EXPECT_TRUE(file_exists(scratch.file("run/artefact/model.pt")));
}

INSTANTIATE_TEST_SUITE_P(Recipes, Shipped, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const auto& file : list_folder(kRecipes))
                             if (file.ends_with(".yaml"))
                               names.push_back(file.substr(0, file.size() - 5));
                           return names;
                         }()),
                         [](const auto& info) { return info.param; });

TEST(Reference, PageInTheFolderIsTheGeneratedOne) {
  const Scratch scratch;
  EXPECT_EQ(lehr({"schema", "--reference"}, scratch.path).out,
            read_file(kRecipes + "/REFERENCE.md"))
      << "build/lehr schema --reference > recipes/REFERENCE.md";
}

}  // namespace lehr::testing
