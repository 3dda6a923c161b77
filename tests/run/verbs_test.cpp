// The verbs on a finished run, and what the program says when it is used wrongly.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {

class Verbs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch = new Scratch;
    write_images(*scratch, 150);
    write_small_recipe(*scratch, 60, 30);
    outcome = lehr({"train", "small.yaml", "--run", "run"}, scratch->path);
  }
  static void TearDownTestSuite() { delete scratch; }
  void SetUp() override { ASSERT_EQ(outcome.code, 0) << outcome.out; }
  static Scratch* scratch;
  static Outcome outcome;
};
Scratch* Verbs::scratch = nullptr;
Outcome Verbs::outcome;

TEST_F(Verbs, PredictWritesALabelAndAProbabilityPerClass) {
  Outcome predicted = lehr(
      {"predict", "run/artefact", "--input", "test-images", "--output", "out.csv"}, scratch->path);
  ASSERT_EQ(predicted.code, 0) << predicted.out;
  std::istringstream csv(scratch->read("out.csv"));
  std::string header, line;
  std::getline(csv, header);
  EXPECT_EQ(header, "label,probability_left,probability_middle,probability_right");
  int64_t n = 0;
  while (std::getline(csv, line)) ++n;
  EXPECT_EQ(n, 150);
}

TEST_F(Verbs, EvaluateGivesTheFigureOfTheRun) {
  Outcome evaluated =
      lehr({"evaluate", "run/artefact", "--data", "test-images", "test-labels", "--json"},
           scratch->path);
  ASSERT_EQ(evaluated.code, 0) << evaluated.out;
  auto figures = nlohmann::json::parse(evaluated.out);
  auto run = nlohmann::json::parse(scratch->read("run/metrics.json"));
  EXPECT_EQ(figures["accuracy"], run["test"]["accuracy"]);
}

TEST_F(Verbs, ExportOfTheRunGivesTheSameModel) {
  Outcome exported = lehr({"export", "run", "--output", "again"}, scratch->path);
  ASSERT_EQ(exported.code, 0) << exported.out;
  EXPECT_EQ(scratch->read("again/model.safetensors"),
            scratch->read("run/artefact/model.safetensors"));
  Outcome twice = lehr({"export", "run", "--output", "again"}, scratch->path);
  EXPECT_EQ(twice.code, 2) << twice.out;
}

TEST_F(Verbs, RefuseAnArtefactThatDoesNotVerify) {
  ASSERT_EQ(shell("rm -rf bad && cp -r run/artefact bad", scratch->path).code, 0);
  std::string weights = scratch->read("bad/model.pt");
  weights[weights.size() / 2] ^= 1;
  scratch->write("bad/model.pt", weights);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"predict", "bad", "--input", "test-images", "--output", "no.csv"},
        {"evaluate", "bad", "--data", "test-images", "test-labels"}}) {
    Outcome refused = lehr(words, scratch->path);
    EXPECT_EQ(refused.code, 5) << refused.out;
    EXPECT_NE(refused.out.find("model.pt"), std::string::npos) << refused.out;
  }
  EXPECT_FALSE(file_exists(scratch->file("no.csv")));
}

TEST_F(Verbs, InspectExplainsARunACheckpointAndAnArtefact) {
  for (const char* path : {"run", "run/checkpoints/step-00000060", "run/artefact"}) {
    Outcome inspected = lehr({"inspect", path, "--json"}, scratch->path);
    ASSERT_EQ(inspected.code, 0) << inspected.out;
    EXPECT_TRUE(nlohmann::json::accept(inspected.out)) << inspected.out;
  }
}

TEST_F(Verbs, ShowPrintsARecipeThatTrainsTheSame) {
  Outcome shown = lehr({"show", "small.yaml"}, scratch->path);
  ASSERT_EQ(shown.code, 0);
  EXPECT_EQ(shown.out, scratch->read("run/recipe.yaml"));
}

TEST_F(Verbs, CheckSaysWhatCanBeKnownWithoutTraining) {
  Outcome checked = lehr({"check", "small.yaml", "--json"}, scratch->path);
  ASSERT_EQ(checked.code, 0) << checked.out;
  auto report = nlohmann::json::parse(checked.out);
  EXPECT_EQ(report["steps"], 60);
  EXPECT_GT(report["parameters"].get<int64_t>(), 100);
  EXPECT_GT(report["flops_per_step"].get<double>(), 1e4);
  EXPECT_GT(report["memory_bytes"]["total"].get<double>(), 1e4);
  EXPECT_EQ(report["exports"], true);
}

TEST_F(Verbs, CheckNamesEveryMistakeWithItsLine) {
  scratch->write(
      "bad.yaml",
      "model:\n  name: cn\ntraining:\n  batch_size: 3\n  max_epochs: 1\nlearning_rate: 0.1\n");
  Outcome checked = lehr({"check", "bad.yaml"}, scratch->path);
  EXPECT_EQ(checked.code, 3);
  for (const char* part :
       {"bad.yaml:2:", "cnn", "bad.yaml:4:", "global_batch_size", "bad.yaml:6:", "optimizer.lr"})
    EXPECT_NE(checked.out.find(part), std::string::npos) << part << "\n" << checked.out;
}

TEST_F(Verbs, DataThatIsMissingNamesTheCommand) {
  Outcome outcome = lehr({"check", "small.yaml", "--set", "data.train_images=nowhere", "--set",
                          "data.name=fashion_mnist"},
                         scratch->path);
  EXPECT_EQ(outcome.code, 4) << outcome.out;
  EXPECT_NE(outcome.out.find("scripts/data fashion_mnist"), std::string::npos) << outcome.out;
}

TEST_F(Verbs, EveryVerbHasHelpWithAnExample) {
  // the verbs are those that the program lists
  std::istringstream lines(lehr({"--help"}, scratch->path).out);
  int verbs = 0;
  for (std::string line; std::getline(lines, line) && line != "Subcommands:";) {
  }
  for (std::string line; std::getline(lines, line) && line.starts_with("  ");) {
    const std::string verb = line.substr(2, line.find(' ', 2) - 2);
    if (verb.empty()) continue;  // the text goes on
    ++verbs;
    const Outcome help = lehr({verb, "--help"}, scratch->path);
    EXPECT_EQ(help.code, 0) << verb;
    const size_t begin = help.out.find("Example:\n");
    ASSERT_NE(begin, std::string::npos) << verb << help.out;
    // each is understood; nothing that it names is here, so that it does nothing
    std::istringstream examples(help.out.substr(begin + 9));
    for (std::string example; std::getline(examples, example);) {
      if (example.find("lehr") == std::string::npos) continue;
      if (example.find(" doctor") != std::string::npos) continue;  // it does all that it can
      Scratch empty;
      const std::string command = example.substr(example.find("lehr") + 4);
      const Outcome tried = shell("'" LEHR_BINARY_DIR "/lehr' " + command, empty.path);
      EXPECT_EQ(tried.out.find("Run with --help"), std::string::npos) << example << tried.out;
      EXPECT_TRUE(verb != "recipes" || tried.code == 0) << example << tried.out;
      const size_t recipe = example.find("recipes/");
      if (recipe == std::string::npos) continue;
      const std::string name = example.substr(recipe, example.find(' ', recipe) - recipe);
      EXPECT_TRUE(file_exists(std::string(LEHR_SOURCE_DIR "/") + name)) << example;
    }
  }
  EXPECT_EQ(verbs, 15);
}

TEST_F(Verbs, UsageMistakesEndWithTwo) {
  EXPECT_EQ(lehr({}, scratch->path).code, 2);
  EXPECT_EQ(lehr({"trian", "small.yaml"}, scratch->path).code, 2);
  EXPECT_EQ(lehr({"train"}, scratch->path).code, 2);
}

TEST_F(Verbs, DoctorNamesVersionsAndDevices) {
  Outcome doctor = lehr({"doctor", "--json"}, scratch->path);
  ASSERT_EQ(doctor.code, 0) << doctor.out;
  EXPECT_TRUE(nlohmann::json::accept(doctor.out)) << doctor.out;
  EXPECT_NE(lehr({"doctor"}, scratch->path).out.find("LibTorch"), std::string::npos);
}

TEST_F(Verbs, RecipesAreListedAndCopied) {
  Outcome listed = lehr({"recipes", "list"}, scratch->path);
  EXPECT_NE(listed.out.find("fashion_mnist_cnn"), std::string::npos) << listed.out;
  EXPECT_EQ(lehr({"recipes", "copy", "fashion_mnist_cnn", "mine.yaml"}, scratch->path).code, 0);
  EXPECT_TRUE(file_exists(scratch->file("mine.yaml")));
  EXPECT_EQ(lehr({"recipes", "copy", "fashion_mnist_cn", "x.yaml"}, scratch->path).code, 2);
}

TEST_F(Verbs, ResumeTestProvesTheUsersOwnRecipe) {
  Outcome proved = lehr({"resume-test", "small.yaml", "--kills", "2", "--set",
                         "checkpoint.interval=5", "--set", "job.output_dir=proofs"},
                        scratch->path);
  EXPECT_EQ(proved.code, 0) << proved.out;
  EXPECT_TRUE(file_exists(scratch->file("proofs")));
  EXPECT_NE(proved.out.find("equal:"), std::string::npos) << proved.out;
  EXPECT_TRUE(file_exists(scratch->file("proofs")));
}

}  // namespace lehr::testing
