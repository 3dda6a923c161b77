// What is not finite, or not known, is never kept, never best, and never shown as a number.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/run/facts.h"
#include "tests/run/program.h"

namespace lehr::testing {

using Json = nlohmann::json;

class Finite : public ::testing::Test {
 protected:
  Outcome lehr(std::vector<std::string> words, const std::vector<std::string>& sets = {}) {
    for (const auto& set : sets) words.insert(words.end(), {"--set", set});
    Outcome outcome = testing::lehr(words, scratch.path);
    EXPECT_EQ(outcome.out.find("nan  "), std::string::npos) << outcome.out;
    EXPECT_EQ(outcome.out.find("-nan"), std::string::npos) << outcome.out;
    return outcome;
  }
  Json json(const std::string& file) { return Json::parse(scratch.read(file)); }
  std::vector<Json> rows(const std::string& run) {
    std::vector<Json> all;
    std::istringstream stream(scratch.read(run + "/metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) all.push_back(Json::parse(line));
    return all;
  }
  // 40 rows: two columns of waves, a target that follows them, and one row of the caller's
  void write_table(const std::string& name, const std::string& extra = "") {
    std::string csv = "a,b,y\n";
    for (int i = 0; i < 40; ++i)
      csv += fmt::format("{:.4f},{:.4f},{:.4f}\n", std::sin(i), std::cos(3 * i),
                         std::sin(i) - std::cos(3 * i));
    scratch.write(name, csv + extra);
  }
  void write_recipe(const std::string& more = "") {
    scratch.write("t.yaml",
                  "model: {name: mlp, hidden: [4]}\n"
                  "data: {source: csv, train_file: train.csv, validation_file: val.csv, target: y, "
                  "task: regression}\n"
                  "loss: {name: mse}\n"
                  "training: {global_batch_size: 8, max_steps: 6, threads: 1}\n"
                  "optimizer: {name: adamw, lr: 1e-2}\n"
                  "validation: {interval: 1}\n"
                  "checkpoint: {interval: 1, keep_latest_k: 2}\n"
                  "metrics: {log_interval: 1}\n" +
                      more);
  }
  Scratch scratch;
};

const std::string kNoExport = "export.enabled=false";

TEST_F(Finite, BatchNormOfOneValueLeavesTheVarianceAlone) {
  write_images(scratch, 100);
  write_small_recipe(scratch, 6, 3);
  const std::vector<std::string> tiny{"model.channels=[4, 4, 4]", "model.dropout=0", kNoExport};
  const auto with = [&](const std::string& set) {
    auto sets = tiny;
    sets.push_back(set);
    return sets;
  };
  const Outcome checked = lehr({"check", "small.yaml", "--json"}, tiny);
  const int64_t samples = Json::parse(checked.out)["samples"]["train"].get<int64_t>();
  const auto batch = [&](int64_t n) { return fmt::format("training.global_batch_size={}", n); };
  const auto expect_finite = [&](const Outcome& outcome, const std::string& run) {
    ASSERT_EQ(outcome.code, 0) << outcome.out;
    EXPECT_TRUE(json(run + "/metrics.json")["validation"]["loss"].is_number());
    const auto newest = checkpoint::newest(scratch.file(run + "/checkpoints"), [](auto&) {});
    for (const auto& tensor : newest->shards.at("weights")->tensors()) {
      const auto* values = static_cast<const float*>(tensor.data);
      for (uint64_t i = 0; tensor.dtype == "F32" && i < tensor.bytes / 4; ++i)
        ASSERT_TRUE(std::isfinite(values[i])) << tensor.name;
    }
  };
  // a last step of one sample; of two ranks, of one each
  const std::string says = "has a micro-batch of one sample";
  const Outcome warned = lehr({"check", "small.yaml"}, with(batch(samples - 1)));
  EXPECT_EQ(warned.code, 0);
  EXPECT_NE(warned.out.find(says), std::string::npos) << warned.out;
  const Outcome one = lehr({"train", "small.yaml", "--run", "one"}, with(batch(samples - 1)));
  EXPECT_NE(one.out.find("data.drop_last"), std::string::npos) << one.out;
  expect_finite(one, "one");
  const Outcome two =
      lehr({"launch", "-n", "2", "small.yaml", "--run", "two"}, with(batch(samples - 2)));
  EXPECT_NE(two.out.find(says), std::string::npos) << two.out;
  expect_finite(two, "two");
  // nothing could be learnt
  for (const char* verb : {"check", "train"}) {
    const Outcome refused = lehr({verb, "small.yaml"}, with("training.micro_batch_size=1"));
    EXPECT_EQ(refused.code, 3) << refused.out;
    EXPECT_NE(refused.out.find("training.micro_batch_size"), std::string::npos) << refused.out;
  }
  // larger maps have a variance
  const Outcome fine =
      lehr({"check", "small.yaml"}, {"training.micro_batch_size=1", "model.channels=[4]"});
  EXPECT_EQ(fine.code, 0) << fine.out;
  EXPECT_EQ(fine.out.find(says), std::string::npos) << fine.out;
}

// Logits overflow while weights are large: no value first, finite ones later.
TEST_F(Finite, AMonitorThatIsNotFiniteIsNeverBestCutOrNot) {
  std::string csv = "a,b,c,d,e,f,k\n";
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 6; ++j) csv += fmt::format("{:.4f},", std::sin((j + 1) * i + j));
    csv += std::sin(i) > 0 ? "u\n" : "v\n";
  }
  scratch.write("train.csv", csv);
  for (const char* huge : {"2.3e38,", "-2.3e38,"}) {
    for (int j = 0; j < 6; ++j) csv += huge;
    csv += "u\n";
  }
  scratch.write("val.csv", csv);
  scratch.write("t.yaml",
                "model: {name: mlp, hidden: [512]}\n"
                "data: {source: csv, train_file: train.csv, validation_file: val.csv, target: k}\n"
                "loss: {name: cross_entropy}\n"
                "training: {global_batch_size: 64, max_steps: 6, threads: 1}\n"
                "optimizer: {name: adamw, lr: 1e-2, weight_decay: 30}\n"
                "validation: {interval: 1, batch_size: 10}\n"
                "checkpoint: {interval: 1, keep_latest_k: 2}\n"
                "metrics: {names: [accuracy], log_interval: 1}\n");
  const Outcome whole = lehr({"train", "t.yaml", "--run", "whole"});
  ASSERT_EQ(whole.code, 0) << whole.out;
  EXPECT_NE(
      whole.out.find("step 1: the output is not finite for sample 64 of the validation split"),
      std::string::npos)
      << whole.out;
  const auto all = rows("whole");
  EXPECT_FALSE(all[0].contains("validation.loss")) << all[0];
  ASSERT_TRUE(all[5].contains("validation.loss")) << all[5];
  double best = INFINITY;
  int64_t best_step = -1;
  for (const auto& row : all)
    if (row.contains("validation.loss") && row["validation.loss"].get<double>() < best)
      best = row["validation.loss"], best_step = row["step"];
  EXPECT_EQ(json("whole/metrics.json")["weights_of_step"], best_step);

  int code = 75;
  for (int i = 0; i < 14 && code == 75; ++i)
    code = lehr({"train", "t.yaml", "--run", "cut"}, {"job.time_limit=0.0001s"}).code;
  ASSERT_EQ(code, 0);
  EXPECT_EQ(fingerprint(scratch.file("whole")), fingerprint(scratch.file("cut")));
  EXPECT_EQ(json("cut/metrics.json")["weights_of_step"], best_step);
  EXPECT_EQ(scratch.read("whole/artefact/model.safetensors"),
            scratch.read("cut/artefact/model.safetensors"));
}

TEST_F(Finite, WhereNoEvaluationIsTheLastWeightsAreTakenAndItIsSaid) {
  write_table("train.csv");
  write_table("val.csv", "1e300,0,0\n");
  write_recipe();
  const Outcome outcome = lehr({"train", "t.yaml", "--run", "run"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("the input is not finite for sample 40 of the validation split"),
            std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("no evaluation gave a finite loss"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find("best so far"), std::string::npos) << outcome.out;
  const Json metrics = json("run/metrics.json");
  EXPECT_EQ(metrics["weights_of_step"], 6);
  EXPECT_EQ(metrics["validation"]["loss"], (Json{{"none", "it is infinite"}}));
}

TEST_F(Finite, AnotherMonitorBeginsAnew) {
  write_table("train.csv");
  write_table("val.csv");
  write_recipe();
  ASSERT_EQ(lehr({"train", "t.yaml", "--run", "run"}, {"job.time_limit=0.0001s"}).code, 75);
  ASSERT_EQ(lehr({"train", "t.yaml", "--run", "run"}, {"job.time_limit=0.0001s"}).code, 75);
  const Outcome outcome = lehr({"train", "t.yaml", "--run", "run"}, {"validation.monitor=r2"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("no longer counts: r2 is what counts now"), std::string::npos)
      << outcome.out;
  double best = -INFINITY;
  int64_t best_step = -1;
  for (const auto& row : rows("run"))
    if (row["step"] > 2 && row["validation.r2"] > best)
      best = row["validation.r2"], best_step = row["step"];
  EXPECT_EQ(json("run/metrics.json")["weights_of_step"], best_step);
  for (const auto& entry : checkpoint::list(scratch.file("run/checkpoints")))
    EXPECT_EQ(entry.monitor->name, "r2") << entry.step;
}

// Of an improvement below min_delta patience takes no notice; the best is the best all the same,
// for the loop and for what is kept.
TEST_F(Finite, TheBestIsTheBestByAnyAmount) {
  write_table("train.csv");
  write_table("val.csv");
  write_recipe("early_stopping: {patience: 4, min_delta: 100}\n");
  const Outcome outcome = lehr({"train", "t.yaml", "--run", "run"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto all = rows("run");
  EXPECT_EQ(all.size(), 5u);
  double best = INFINITY;
  int64_t best_step = -1;
  for (const auto& row : all)
    if (row["validation.loss"] < best) best = row["validation.loss"], best_step = row["step"];
  EXPECT_GT(best_step, 1);
  EXPECT_EQ(json("run/metrics.json")["weights_of_step"], best_step);
}

TEST_F(Finite, StepsThatWereSkippedAreCountedAndHaveNoLoss) {
  write_table("train.csv", "1e38,-1e38,1e30\n");
  write_table("val.csv");
  write_recipe();
  const std::vector<std::string> skip{"training.non_finite=skip", kNoExport,
                                      "training.global_batch_size=10", "training.max_steps=5"};
  const Outcome some = lehr({"train", "t.yaml", "--run", "some"}, skip);
  ASSERT_EQ(some.code, 0) << some.out;
  int64_t skipped = 0;
  for (const auto& row : rows("some")) {
    const bool now = row.value("train.skipped_steps", int64_t{0}) > skipped;
    skipped += now;
    EXPECT_EQ(row.contains("train.loss"), !now) << row;
    EXPECT_EQ(row.contains("train.grad_norm"), !now) << row;
    EXPECT_TRUE(row.contains("train.lr")) << row;
  }
  EXPECT_EQ(skipped, 1);
  EXPECT_EQ(json("some/finished.json")["skipped_steps"], 1);
  EXPECT_NE(some.out.find("1 of 5 steps were skipped"), std::string::npos) << some.out;

  scratch.write("train.csv", "a,b,y\n1,2,1e30\n2,1,-1e30\n");
  for (int i = 0; i < 2; ++i) {  // also when it is asked again
    const Outcome none = lehr({"train", "t.yaml", "--run", "none"}, skip);
    EXPECT_EQ(none.code, 7) << none.out;
    EXPECT_NE(none.out.find("each of the 5 steps was skipped"), std::string::npos) << none.out;
  }
  for (const auto& row : rows("none")) EXPECT_FALSE(row.contains("train.loss")) << row;
  EXPECT_FALSE(file_exists(scratch.file("none/finished.json")));
}

TEST_F(Finite, AModelWithoutFiniteOutputsIsNotPublished) {
  write_table("train.csv");
  write_table("val.csv");
  write_recipe();
  const Outcome outcome = lehr({"train", "t.yaml", "--run", "run"},
                               {"optimizer.name=sgd", "optimizer.lr=1e37", "training.max_steps=1"});
  EXPECT_EQ(outcome.code, 7) << outcome.out;
  EXPECT_NE(
      outcome.out.find("the model's output for sample 0 of the validation split is not finite"),
      std::string::npos)
      << outcome.out;
  EXPECT_FALSE(file_exists(scratch.file("run/artefact")));
  EXPECT_EQ(lehr({"export", "run", "--output", "model"}).code, 7);
  EXPECT_FALSE(file_exists(scratch.file("model")));
}

// A row far beyond the training data, for which sums within the model overflow.
TEST_F(Finite, APredictionThatIsNotFiniteIsSaidAndHasNoLabel) {
  std::string csv = "a,b,y\n";
  for (int i = 0; i < 40; ++i)
    csv += fmt::format("{:.4f},{:.4f},{}\n", std::sin(i), std::cos(3 * i), i % 3 ? "u" : "v");
  scratch.write("train.csv", csv), scratch.write("val.csv", csv);
  write_recipe();
  ASSERT_EQ(lehr({"train", "t.yaml", "--run", "run"},
                 {"data.task=classification", "loss.name=cross_entropy", "model.hidden=[64]",
                  "training.max_steps=1"})
                .code,
            0);
  scratch.write("far.csv", "a,b,y\n0.1,0.2,u\n2.3e38,2.3e38,u\n0.3,0.1,v\n");
  const std::string said = "the output is not finite for 1 of 3 samples; the first is sample 1";
  const Outcome predicted =
      lehr({"predict", "run/artefact", "--input", "far.csv", "--output", "out.csv"});
  EXPECT_EQ(predicted.code, 0);
  EXPECT_NE(predicted.out.find(said), std::string::npos) << predicted.out;
  EXPECT_NE(scratch.read("out.csv").find("\n,nan,nan\n"), std::string::npos)
      << scratch.read("out.csv");
  const Outcome evaluated = lehr({"evaluate", "run/artefact", "--data", "far.csv"});
  EXPECT_EQ(evaluated.code, 0);
  EXPECT_NE(evaluated.out.find(said), std::string::npos) << evaluated.out;
}

TEST(Facts, KeepNamesOfValuesAndReadThoseOfOlderBuilds) {
  run::Progress p;
  p.step = p.evaluated_step = 7, p.best_step = 5;
  p.monitored = "r2", p.best = 0.5, p.improved = 0.4, p.monitor = 0.25, p.evaluation_cut = true;
  const std::string text = run::facts_json(p, {}, "{}", "", "");
  const run::Progress same = run::progress_of(text);
  EXPECT_EQ(same.monitored, "r2");
  EXPECT_EQ(same.best, 0.5);
  EXPECT_EQ(same.improved, 0.4);
  EXPECT_EQ(same.monitor, 0.25);
  EXPECT_EQ(same.best_step, 5);
  EXPECT_TRUE(same.evaluation_cut);
  Json old = Json::parse(text);
  old["monitor"] = 0.25, old["progress"]["best"] = 0.5;
  old["progress"].erase("improved"), old["progress"].erase("evaluation_cut");
  run::Progress read = run::progress_of(old.dump());
  EXPECT_EQ(read.monitored, "");
  EXPECT_EQ(read.best, 0.5);
  EXPECT_EQ(read.improved, 0.5);
  EXPECT_EQ(read.best_step, 5);
  EXPECT_EQ(read.monitor, 0.25);
  old["progress"]["best"] = nullptr;  // which was NaN
  read = run::progress_of(old.dump());
  EXPECT_FALSE(read.best);
  EXPECT_EQ(read.best_step, -1);
}

}  // namespace lehr::testing
