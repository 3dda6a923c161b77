// Between two steps: an evaluation that a stop cuts, reports that cannot be written, who traces.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "engine/checkpoint/checkpoint.h"
#include "tests/run/program.h"

namespace lehr::testing {

using Json = nlohmann::json;

class Boundary : public ::testing::Test {
 protected:
  std::vector<Json> rows(const std::string& run) {
    std::vector<Json> all;
    std::istringstream stream(scratch.read(run + "/metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) all.push_back(Json::parse(line));
    return all;
  }
  Json facts(const std::string& run) {
    const auto newest = checkpoint::newest(scratch.file(run + "/checkpoints"), [](auto&) {});
    return newest ? Json::parse(newest->facts) : Json();
  }
  Outcome run(std::vector<std::string> words, const std::string& folder,
              const std::vector<std::string>& sets = {}) {
    words.insert(words.end(), {"t.yaml", "--run", folder});
    for (const auto& set : sets) words.insert(words.end(), {"--set", set});
    return lehr(words, scratch.path);
  }
  // `validation` rows to evaluate one by one
  void write(int validation, const std::string& more = "") {
    const auto table = [&](const std::string& name, int rows) {
      std::string csv = "a,b,y\n";
      for (int i = 0; i < rows; ++i)
        csv += fmt::format("{:.4f},{:.4f},{:.4f}\n", std::sin(i), std::cos(3 * i),
                           std::sin(i) - std::cos(3 * i));
      scratch.write(name, csv);
    };
    table("train.csv", 40);
    table("val.csv", validation);
    scratch.write("t.yaml",
                  "model: {name: mlp, hidden: [4]}\n"
                  "data: {source: csv, train_file: train.csv, validation_file: val.csv, target: y, "
                  "task: regression}\n"
                  "loss: {name: mse}\n"
                  "training: {global_batch_size: 8, max_steps: 4, threads: 1}\n"
                  "optimizer: {name: adamw, lr: 1e-1}\n"
                  "early_stopping: {patience: 3}\n"
                  "validation: {interval: 2, batch_size: 1}\n"
                  "checkpoint: {interval: 3, keep_latest_k: 2, keep_best_k: 2}\n"
                  "metrics: {log_interval: 3}\n" +
                      more);
  }
  Scratch scratch;
};

// A time limit that is over after the first step cuts every evaluation after its first batch.
TEST_F(Boundary, AnEvaluationThatAStopCutIsMadeByTheNextInvocation) {
  write(20);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"train"}, {"launch", "-n", "2"}}) {
    const std::string n = std::to_string(words.size()), whole = "whole" + n, cut = "cut" + n;
    ASSERT_EQ(run(words, whole).code, 0);
    int cuts = 0, code = 75;
    for (int i = 0; i < 12 && code == 75; ++i) {
      code = run(words, cut, {"job.time_limit=0.0001s"}).code;
      cuts += facts(cut)["progress"]["evaluation_cut"].get<bool>();
    }
    ASSERT_EQ(code, 0);
    EXPECT_EQ(cuts, 2);
    EXPECT_EQ(fingerprint(scratch.file(whole)), fingerprint(scratch.file(cut)));
    const Json a = facts(whole), b = facts(cut);
    for (const char* fact : {"monitor", "step", "samples"}) EXPECT_EQ(a[fact], b[fact]) << fact;
    for (const auto& [key, value] : a["progress"].items())
      if (key != "train_seconds") {
        EXPECT_EQ(value, b["progress"][key]) << key;
      }
    const auto all = rows(whole), some = rows(cut);
    ASSERT_EQ(all.size(), some.size());
    for (size_t i = 0; i < all.size(); ++i)
      for (const auto& [name, value] : all[i].items())
        if (name != "time" && name != "train.samples_per_s") {
          EXPECT_EQ(value, some[i][name]) << name << " of row " << i;
        }
    EXPECT_EQ(scratch.read(whole + "/artefact/model.safetensors"),
              scratch.read(cut + "/artefact/model.safetensors"));
    // what is rated is rated in both, so that the best ones stay
    const auto rated = [&](const std::string& folder) {
      std::vector<std::pair<int64_t, double>> best;
      for (const auto& entry : checkpoint::list(scratch.file(folder + "/checkpoints")))
        if (entry.monitor) best.emplace_back(entry.step, entry.monitor->value);
      return best;
    };
    EXPECT_EQ(rated(whole).front(), rated(cut).front());
  }
}

// The best is what another run's checkpoint holds, whose evaluation was cut: it is kept here.
TEST_F(Boundary, AnEvaluationThatWasCutInAnotherRunKeepsItsBest) {
  write(20);
  do ASSERT_EQ(run({"train"}, "cut", {"job.time_limit=0.0001s"}).code, 75);
  while (!facts("cut")["progress"]["evaluation_cut"].get<bool>());
  const Outcome other =
      run({"train", "--allow-approximate-resume"}, "other",
          {"checkpoint.resume=cut", "optimizer.lr=10", "checkpoint.interval=100"});
  ASSERT_EQ(other.code, 0) << other.out;
  EXPECT_EQ(Json::parse(scratch.read("other/metrics.json"))["weights_of_step"], 2) << other.out;
}

TEST_F(Boundary, ASignalIsServedWithinAnEvaluation) {
  write(200000, "export: {enabled: false}\n");
  for (const std::vector<std::string>& start :
       {std::vector<std::string>{"train"}, {"launch", "-n", "2"}}) {
    const std::string n = std::to_string(start.size());
    Json saved;
    // after the row of step 1 the evaluation of step 2 begins; a signal may still come before
    for (int i = 0; i < 9 && (saved.is_null() || saved["step"] == 1); ++i) {
      const std::string folder = fmt::format("run{}-{}", n, i);
      std::vector<std::string> words = start;
      words.insert(words.end(), {"t.yaml", "--run", folder, "--set", "metrics.log_interval=1"});
      const pid_t pid = start_lehr(words, scratch.path, scratch.file("log" + n));
      const auto has_row = [&] {
        const std::string file = folder + "/metrics.jsonl";
        return file_exists(scratch.file(file)) && !scratch.read(file).empty();
      };
      ASSERT_TRUE(wait_for(has_row, 60, pid));
      kill(pid, SIGTERM);
      EXPECT_EQ(wait_for(pid), 75) << scratch.read("log" + n);
      saved = facts(folder);
    }
    EXPECT_EQ(saved["step"], 2);
    EXPECT_TRUE(saved["progress"]["evaluation_cut"].get<bool>());
  }
}

// Reports lie on a small disk of their own, that is full for a while; checkpoints elsewhere.
TEST_F(Boundary, AFullDiskForReportsEndsNoTraining) {
  write(20, "export: {enabled: false}\n");
  const std::string folder = scratch.file("run");
  make_folders(folder), make_folders(scratch.file("saved"));
  if (::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "NOT TESTED: a full disk needs root, for mounting one";
  struct Unmount {
    std::string folder;
    ~Unmount() { ::umount2(folder.c_str(), MNT_DETACH); }
  } unmount{folder};
  ASSERT_EQ(::symlink(scratch.file("saved").c_str(), (folder + "/checkpoints").c_str()), 0);
  const pid_t pid =
      start_lehr({"train", "t.yaml", "--run", "run", "--set", "training.max_steps=10000000",
                  "--set", "metrics.log_interval=100", "--set", "validation.interval=10000000",
                  "--set", "checkpoint.interval=50"},
                 scratch.path, scratch.file("log"));
  const auto said = [&](const std::string& what) {
    const std::string log = scratch.read("log");
    int count = 0;
    for (size_t at = log.find(what); at != std::string::npos; at = log.find(what, at + 1)) ++count;
    return count;
  };
  const auto size = [&] {
    const std::string path = folder + "/metrics.jsonl";
    return file_exists(path) ? read_file(path).size() : 0;
  };
  ASSERT_TRUE(wait_for([&] { return size() > 0; }, 60, pid));
  scratch.write("run/filler", std::string(1 << 20, 'x'));  // as much of it as there is room for
  ASSERT_TRUE(wait_for(
      [&] { return said("/metrics.jsonl: cannot write") > 0 && said("tfevents") > 0; }, 60, pid));
  const size_t full = size();
  ASSERT_EQ(::unlink((folder + "/filler").c_str()), 0);
  ASSERT_TRUE(wait_for([&] { return size() > full; }, 60, pid)) << scratch.read("log");
  kill(pid, SIGTERM);
  ASSERT_EQ(wait_for(pid), 75) << scratch.read("log");
  // once for each that could not be written, and nothing is missing
  EXPECT_EQ(said("/metrics.jsonl: cannot write"), 1) << scratch.read("log");
  EXPECT_EQ(said("tfevents"), 1) << scratch.read("log");
  int64_t step = 0;
  for (const auto& row : rows("run")) ASSERT_EQ(row["step"], step += 100);
  EXPECT_EQ(facts("run")["step"].get<int64_t>() / 100, step / 100);
}

TEST_F(Boundary, WhatCannotBeWrittenBesideACheckpointIsAWarning) {
  write(20, "export: {enabled: false}\n");
  for (const char* name : {"log.txt", "metrics.jsonl", "report.html", "metrics.json", "trace.json"})
    make_folders(scratch.file(std::string("run/") + name + "/"));
  scratch.write("run/tensorboard", "a file");
  const Outcome outcome = run(
      {"train"}, "run", {"profiling.enabled=true", "profiling.first_step=2", "profiling.steps=1"});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  for (const char* name :
       {"log.txt", "metrics.jsonl", "report.html", "metrics.json", "trace.json", "tensorboard"})
    EXPECT_NE(outcome.out.find(name), std::string::npos) << name << "\n" << outcome.out;
  EXPECT_TRUE(file_exists(scratch.file("run/finished.json")));
}

TEST_F(Boundary, TheLeadOfSeveralRanksTraces) {
  write(20, "export: {enabled: false}\n");
  const Outcome outcome =
      run({"launch", "-n", "4"}, "run",
          {"profiling.enabled=true", "profiling.first_step=2", "profiling.steps=2"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_EQ(outcome.out.find("warning"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("profile of the chosen steps"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find("[rank"), std::string::npos) << outcome.out;
  EXPECT_TRUE(Json::accept(scratch.read("run/trace.json")));
  EXPECT_FALSE(file_exists(scratch.file("run/trace.json.part")));
  const Outcome outside = run({"train"}, "other", {"profiling.file=../trace.json"});
  EXPECT_EQ(outside.code, 3) << outside.out;
  EXPECT_NE(outside.out.find("profiling.file"), std::string::npos) << outside.out;
}

}  // namespace lehr::testing
