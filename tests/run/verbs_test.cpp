// The verbs on a finished run, and what the program says when it is used wrongly.
#include <gtest/gtest.h>
#include <signal.h>

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

// From the artefact alone: delimiter, words for missing numbers, columns by name, quotes.
TEST(VerbsOfTables, ReadAFileAsTheTrainingDid) {
  const Scratch scratch;
  for (const char* separator : {";", "tab"}) {
    const std::string d = std::string(separator) == "tab" ? "\t" : separator;
    std::string train = "x" + d + "id" + d + "city" + d + "y\n",
                test = "y" + d + "city" + d + "x\n";
    for (int i = 0; i < 90; ++i) {
      const std::string x = i % 7 == 3 ? "?" : i % 11 == 5 ? "None" : std::to_string(i % 13);
      const std::string city = i % 3 ? "\"Halle" + d + " Saale\"" : "Ulm";
      train += x + d + std::to_string(i) + d + city + d + (i % 13 > 5 ? "yes" : "no") + "\n";
      if (i % 4 == 0)
        test += std::string(i % 13 > 4 ? "yes" : "no") + d + (i % 8 ? city : "Rom") + d + x + "\n";
    }
    scratch.write("train.csv", train);
    scratch.write("test.csv", test);
    scratch.write(
        "table.yaml",
        "data:\n  source: csv\n  train_file: train.csv\n  test_file: test.csv\n  target: y\n"
        "  ignore_columns: [id]\n  missing_values: [\"?\"]\n  delimiter: \"" +
            std::string(separator) +
            "\"\nmodel:\n  name: logistic\ntraining:\n  global_batch_size: 16\n"
            "  max_epochs: 3\n  threads: 1\n  device: cpu\noptimizer:\n  lr: 0.1\n");
    shell("rm -rf run", scratch.path);
    const Outcome trained = lehr({"train", "table.yaml", "--run", "run"}, scratch.path);
    ASSERT_EQ(trained.code, 0) << trained.out;
    EXPECT_NE(trained.out.find("of 23 rows have a value of 'city' that training has not: 'Rom'"),
              std::string::npos)
        << trained.out;
    const Outcome evaluated = shell(
        LEHR_BINARY_DIR "/lehr evaluate run/artefact --data test.csv --json 2> said", scratch.path);
    ASSERT_EQ(evaluated.code, 0) << evaluated.out << scratch.read("said");
    auto figures = nlohmann::json::parse(evaluated.out);
    auto row = nlohmann::json::parse(scratch.read("run/metrics.json"))["test"];
    EXPECT_EQ(figures["samples"], 23);
    for (const char* metric : {"accuracy", "log_loss", "roc_auc"})
      EXPECT_EQ(figures[metric], row[metric]) << separator << metric;
    const Outcome predicted = lehr(
        {"predict", "run/artefact", "--input", "test.csv", "--output", "out.csv"}, scratch.path);
    ASSERT_EQ(predicted.code, 0) << predicted.out;
    EXPECT_NE(predicted.out.find("of 23 rows have a value of 'city'"), std::string::npos);
    std::istringstream answers(scratch.read("out.csv")), labels(test);
    std::string answer, label;
    std::getline(answers, answer), std::getline(labels, label);
    int right = 0;
    for (int i = 0; i < 23; ++i) {
      ASSERT_TRUE(std::getline(answers, answer) && std::getline(labels, label));
      right += answer.substr(0, answer.find(',')) == label.substr(0, label.find(d));
    }
    EXPECT_EQ(right / 23.0, row["accuracy"].get<double>()) << separator;
    const Outcome none = shell("head -1 test.csv > none.csv; " LEHR_BINARY_DIR
                               "/lehr predict run/artefact --input none.csv --output out.csv",
                               scratch.path);
    EXPECT_EQ(none.code, 4);
    EXPECT_NE(none.out.find("none.csv: the input holds no samples"), std::string::npos) << none.out;
  }
}

TEST_F(Verbs, LostOutputIsAnError) {
  for (const char* words :
       {"schema", "show small.yaml", "check small.yaml --json", "inspect run --json",
        "recipes list", "doctor", "evaluate run/artefact --data test-images test-labels --json",
        "predict run/artefact --input test-images --output -", "--help"}) {
    const Outcome lost =
        shell(std::string(LEHR_BINARY_DIR "/lehr ") + words + " > /dev/full", scratch->path);
    EXPECT_EQ(lost.code, 4) << words << lost.out;
    EXPECT_NE(lost.out.find("the output is lost: No space left on device"), std::string::npos)
        << words << lost.out;
  }
  // a reader that has seen enough is no error of ours to tell of
  for (const auto handler : {SIG_DFL, SIG_IGN}) {  // as some launchers do
    const auto before = signal(SIGPIPE, handler);
    const Outcome cut =
        shell(LEHR_BINARY_DIR "/lehr schema 2> said | true; cat said", scratch->path);
    signal(SIGPIPE, before);
    EXPECT_EQ(cut.out.find("error:"), std::string::npos) << cut.out;
  }
  const Outcome through = shell(
      LEHR_BINARY_DIR "/lehr predict run/artefact --input test-images --output - 2> said | wc -l",
      scratch->path);
  EXPECT_EQ(through.out, "151\n");
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

TEST_F(Verbs, WhatIsGivenInsteadIsNamedWithARemedy) {
  struct Case {
    std::vector<std::string> words;
    int code;
    std::string says;
  };
  for (const Case& c : std::vector<Case>{
           {{"export", "run/artefact", "--output", "x"}, 2, "is an artefact, and a run or"},
           {{"train", "small.yaml", "--run", "x", "--set", "model.init_from=run/artefact"},
            2,
            "model.init_from the model.safetensors in it"},
           {{"export", "run/artefact/model.pt", "--output", "x"}, 2, "folder that it lies in"},
           {{"generate", "run/metrics.jsonl", "--prompt", "x"}, 2, "folder that it lies in"},
           {{"train", "small.yaml", "--run", "small.yaml"}, 2, "name a folder for the run"}}) {
    const Outcome refused = lehr(c.words, scratch->path);
    EXPECT_EQ(refused.code, c.code) << refused.out;
    EXPECT_NE(refused.out.find(c.says), std::string::npos) << refused.out;
  }
  EXPECT_FALSE(file_exists(scratch->file("x")));
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

TEST_F(Verbs, ABaseThatIsNotThereIsNamedFromAnyFolder) {
  scratch->write("child.yaml", "extends: nope.yaml\n");
  for (const char* recipe : {"child.yaml", "./child.yaml"}) {
    const Outcome outcome = lehr({"check", recipe}, scratch->path);
    EXPECT_EQ(outcome.code, 3);
    EXPECT_NE(outcome.out.find("cannot be opened"), std::string::npos) << outcome.out;
  }
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
  EXPECT_EQ(lehr({"recipes", "copy", "fashion_mnist_cnn", "-"}, scratch->path).out,
            scratch->read("mine.yaml"));
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
