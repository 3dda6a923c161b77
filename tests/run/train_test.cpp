// A whole run as a user sees it: begin, continue, stop, finish, refuse.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {

class Train : public ::testing::Test {
 protected:
  void SetUp() override { write_images(scratch, 200); }
  Outcome train(std::vector<std::string> more = {}) {
    std::vector<std::string> words{"train", "small.yaml"};
    words.insert(words.end(), more.begin(), more.end());
    return lehr(words, scratch.path);
  }
  std::vector<nlohmann::json> rows(const std::string& run) {
    std::vector<nlohmann::json> all;
    std::istringstream stream(scratch.read(run + "/metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) all.push_back(nlohmann::json::parse(line));
    return all;
  }
  Scratch scratch;
};

TEST_F(Train, LeavesEverythingThatARunPromises) {
  write_small_recipe(scratch, 60, 20);
  Outcome outcome = train();
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const std::string run = "runs/small-1";
  for (const char* file :
       {"recipe.yaml", "log.txt", "metrics.jsonl", "report.html", "metrics.json", "finished.json",
        "artefact/model.pt", "artefact/MANIFEST.json", "checkpoints/step-00000060/MANIFEST.json"})
    EXPECT_TRUE(file_exists(scratch.file(run + "/" + file))) << file;
  auto metrics = nlohmann::json::parse(scratch.read(run + "/metrics.json"));
  EXPECT_GT(metrics["test"]["accuracy"].get<double>(), 0.9);
  auto all = rows(run);
  ASSERT_EQ(all.size(), 60u);
  EXPECT_TRUE(all.back().contains("validation.accuracy"));
  EXPECT_TRUE(all.front().contains("train.loss"));
}

TEST_F(Train, ComparesAStepWithItsProductsAlone) {
  write_small_recipe(scratch, 30, 30, "export:\n  enabled: false\n");
  Outcome outcome =
      train({"--set", "profiling.speed_of_light=true", "--set", "metrics.log_interval=5"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto at = outcome.out.find("speed of light: ");
  ASSERT_NE(at, std::string::npos) << outcome.out;
  const double share = std::stod(outcome.out.substr(at + 16));
  EXPECT_GT(share, 0);
  EXPECT_LT(share, 1.5);
}

TEST_F(Train, RefusesALengthThatIsNoStepButTakesNone) {
  write_small_recipe(scratch, 5, 5);
  Outcome outcome =
      train({"--set", "training.max_steps=null", "--set", "training.max_epochs=0.01"});
  EXPECT_EQ(outcome.code, 3) << outcome.out;
  EXPECT_NE(outcome.out.find("--set training.max_epochs: 0.01 of 11 steps an epoch is no step"),
            std::string::npos)
      << outcome.out;
  outcome = train({"--set", "training.max_steps=0", "--set", "lr_scheduler.name=constant"});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
}

TEST_F(Train, OneStepAnInvocationEqualsAllAtOnce) {
  write_small_recipe(scratch, 12, 7, "export:\n  enabled: false\n");
  ASSERT_EQ(train({"--run", "whole"}).code, 0);
  // a time limit that is over before the first step: an invocation takes one, saves and leaves
  for (int step = 1; step < 12; ++step) {
    Outcome outcome = train({"--run", "cut", "--set", "job.time_limit=0.001s"});
    ASSERT_EQ(outcome.code, 75) << outcome.out;
    EXPECT_NE(outcome.out.find("job.time_limit"), std::string::npos) << outcome.out;
  }
  ASSERT_EQ(train({"--run", "cut"}).code, 0);
  EXPECT_EQ(fingerprint(scratch.file("whole")), fingerprint(scratch.file("cut")));
}

TEST_F(Train, ContinuesExactlyAfterKillsAndNeverLosesAStep) {
  const std::string more = "export:\n  enabled: false\n";
  write_small_recipe(scratch, 40, 5, more);
  ASSERT_EQ(train({"--run", "whole"}).code, 0);
  pid_t pid =
      start_lehr({"train", "small.yaml", "--run", "cut"}, scratch.path, scratch.file("log"));
  ASSERT_TRUE(wait_for(
      [&] { return file_exists(scratch.file("cut/checkpoints/step-00000010/MANIFEST.json")); }, 60,
      pid));
  kill(pid, SIGKILL);
  wait_for(pid);
  ASSERT_FALSE(file_exists(scratch.file("cut/finished.json")))
      << "the kill came too late to show anything";
  Outcome rest = train({"--run", "cut"});
  ASSERT_EQ(rest.code, 0) << rest.out;
  EXPECT_NE(rest.out.find("continuing after step"), std::string::npos) << rest.out;
  EXPECT_EQ(fingerprint(scratch.file("whole")), fingerprint(scratch.file("cut")));
  std::set<int64_t> steps;
  for (const auto& row : rows("cut"))
    EXPECT_TRUE(steps.insert(row["step"].get<int64_t>()).second) << row;
  EXPECT_EQ(steps.size(), 40u);
}

TEST_F(Train, RefusesToContinueWithAnotherLearningRate) {
  write_small_recipe(scratch, 10, 5, "export:\n  enabled: false\n");
  ASSERT_EQ(train({"--run", "run"}).code, 0);
  unlink(scratch.file("run/finished.json").c_str());
  Outcome outcome = train({"--run", "run", "--set", "optimizer.lr=1e-3"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_NE(outcome.out.find("optimizer.lr"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("--allow-approximate-resume"), std::string::npos) << outcome.out;
  Outcome threads = train({"--run", "run", "--set", "training.threads=2"});
  EXPECT_EQ(threads.code, 5);
  EXPECT_NE(threads.out.find("threads"), std::string::npos) << threads.out;
  // a field that is free to change does not break exactness
  Outcome free = train({"--run", "run", "--set", "checkpoint.interval=3"});
  EXPECT_EQ(free.code, 0) << free.out;
}

TEST_F(Train, RefusesTwoRunsInOneFolder) {
  write_small_recipe(scratch, 100000, 100000, "export:\n  enabled: false\n");
  pid_t pid =
      start_lehr({"train", "small.yaml", "--run", "run"}, scratch.path, scratch.file("log"));
  ASSERT_TRUE(wait_for([&] { return file_exists(scratch.file("run/metrics.jsonl")); }, 60, pid));
  Outcome second = train({"--run", "run"});
  EXPECT_EQ(second.code, 2) << second.out;
  EXPECT_NE(second.out.find(std::to_string(pid)), std::string::npos) << second.out;
  kill(pid, SIGKILL);
  wait_for(pid);
}

TEST_F(Train, UsesTheOlderCheckpointWhenTheNewestIsDamaged) {
  write_small_recipe(scratch, 30, 10, "export:\n  enabled: false\n");
  ASSERT_EQ(train({"--run", "run"}).code, 0);
  const std::string whole = fingerprint(scratch.file("run"));
  unlink(scratch.file("run/finished.json").c_str());
  const std::string victim = "run/checkpoints/step-00000030/model.safetensors";
  std::string bytes = scratch.read(victim);
  bytes[bytes.size() / 2] ^= 1;
  scratch.write(victim, bytes);
  Outcome outcome = train({"--run", "run"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("model.safetensors"), std::string::npos) << outcome.out;
  EXPECT_EQ(whole, fingerprint(scratch.file("run")));
}

TEST_F(Train, BeginsAtTheCheckpointOfAnotherRun) {
  write_small_recipe(scratch, 20, 10, "export:\n  enabled: false\n");
  ASSERT_EQ(train({"--run", "whole"}).code, 0);
  Outcome outcome =
      train({"--run", "other", "--set", "checkpoint.resume=whole/checkpoints/step-00000010"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("continuing after step 10"), std::string::npos) << outcome.out;
  EXPECT_EQ(fingerprint(scratch.file("whole")), fingerprint(scratch.file("other")));
  // a run folder names its newest; another learning rate differs, and starts from weights alone
  outcome = train({"--run", "third", "--set", "checkpoint.resume=whole"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("continuing after step 20"), std::string::npos) << outcome.out;
  outcome = train({"--run", "fourth", "--set", "model.init_from=whole", "--set",
                   "optimizer.lr=1e-9", "--set", "training.max_steps=1"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_LT(rows("fourth")[0]["train.loss"].get<double>(),
            0.9 * rows("whole")[0]["train.loss"].get<double>());
}

TEST_F(Train, WritesATraceOfTheChosenSteps) {
  write_small_recipe(scratch, 12, 3,
                     "export:\n  enabled: false\nprofiling:\n  enabled: true\n  first_step: 9\n"
                     "  steps: 2\n");
  Outcome outcome = train({"--run", "run"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  auto trace = nlohmann::json::parse(scratch.read("run/trace.json"));
  std::set<std::string> names;
  for (const auto& event : trace["traceEvents"]) names.insert(event.value("name", ""));
  for (const char* name : {"step 9", "step 10", "load", "step", "evaluate", "save", "aten::conv2d"})
    EXPECT_TRUE(names.count(name)) << name;
  EXPECT_FALSE(names.count("step 11"));
}

TEST_F(Train, StopsEarlyWhenTheMonitorNoLongerImproves) {
  write_small_recipe(
      scratch, 500, 1000,
      "early_stopping:\n  patience: 2\n  min_delta: 0.5\nexport:\n  enabled: false\n");
  Outcome outcome = train({"--run", "run"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_EQ(rows("run").back()["step"].get<int64_t>(), 30);  // best at 10, then two without
  EXPECT_NE(outcome.out.find("early stopping: accuracy is not better by more than 0.5 in 2 eval"),
            std::string::npos)
      << outcome.out;
  EXPECT_EQ(nlohmann::json::parse(scratch.read("run/finished.json"))["reason"],
            "early_stopping.patience");
  // more patience asks for more steps
  outcome = train({"--run", "run", "--set", "early_stopping.patience=3"});
  EXPECT_EQ(outcome.code, 2) << outcome.out;
  EXPECT_NE(outcome.out.find("early_stopping.patience: 2 -> 3"), std::string::npos) << outcome.out;
}

TEST_F(Train, ExportsTheLastWeightsWhereSomebodyTookTheBestAway) {
  write_small_recipe(scratch, 4, 100, "export:\n  enabled: false\n");
  const std::vector<std::string> words{"--run", "run", "--set", "validation.interval=2", "--set"};
  auto with = [&](const char* value) {
    std::vector<std::string> all = words;
    all.emplace_back(value);
    return train(all);
  };
  for (int step = 1; step < 4; ++step) ASSERT_EQ(with("job.time_limit=0.001s").code, 75);
  remove_tree(scratch.file("run/checkpoints/step-00000002"));  // the best so far
  // the last evaluation cannot be better
  Outcome outcome = with("early_stopping.min_delta=100");
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("the best checkpoint, step 2, is gone; the weights of step 4 are"),
            std::string::npos)
      << outcome.out;
}

}  // namespace lehr::testing
