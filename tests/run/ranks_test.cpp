// Several ranks as users start them: the same numbers as one, whatever the launcher; agreed stops.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {

class RanksRun : public ::testing::Test {
 protected:
  void SetUp() override {
    write_images(scratch, 203);
    write_small_recipe(scratch, 30, 10, "export:\n  enabled: false\n");
  }
  Outcome launch(int ranks, const std::string& run, std::vector<std::string> more = {}) {
    std::vector<std::string> words{"launch",     "-n",    std::to_string(ranks),
                                   "small.yaml", "--run", run};
    words.insert(words.end(), more.begin(), more.end());
    return lehr(words, scratch.path);
  }
  Outcome train(const std::string& run, std::vector<std::string> more = {}) {
    std::vector<std::string> words{"train", "small.yaml", "--run", run};
    words.insert(words.end(), more.begin(), more.end());
    return lehr(words, scratch.path);
  }
  bool wait_for_manifest(const std::string& run, pid_t pid) {
    return wait_for(
        [&] { return file_exists(scratch.file(run + "/checkpoints/step-00000010/MANIFEST.json")); },
        60, pid);
  }
  nlohmann::json last_row(const std::string& run) {
    std::istringstream stream(scratch.read(run + "/metrics.jsonl"));
    std::string line, last;
    while (std::getline(stream, line)) last = line;
    return nlohmann::json::parse(last);
  }
  Scratch scratch;
};

// how many samples the evaluation after step 30 has seen
std::string evaluated_samples(const std::string& out) {
  const auto begin = out.find("step 30, ");
  EXPECT_NE(begin, std::string::npos) << out;
  return out.substr(begin, out.find(" samples", begin) - begin);
}

const std::vector<std::string> kFixed{"--set", "parallelism.reduction=fixed_order", "--set",
                                      "parallelism.logical_shards=4"};
// without batch statistics, which k micro-batches do not share
const std::vector<std::string> kNoNorm{"--set", "model.batch_norm=false"};

TEST_F(RanksRun, GiveTheNumbersOfOneRank) {
  const Outcome one = train("one", kNoNorm);
  ASSERT_EQ(one.code, 0);
  for (int ranks : {2, 3}) {
    const std::string run = "of" + std::to_string(ranks);
    const Outcome outcome = launch(ranks, run, kNoNorm);
    ASSERT_EQ(outcome.code, 0) << outcome.out;
    const auto alone = last_row("one"), together = last_row(run);
    for (const char* name : {"train.loss", "train.grad_norm", "validation.loss"})
      EXPECT_NEAR(together[name].get<double>(), alone[name].get<double>(), 2e-3) << name;
    EXPECT_EQ(together["samples"], alone["samples"]);
    // every validation sample counts once
    EXPECT_EQ(evaluated_samples(outcome.out), evaluated_samples(one.out));
  }
}

TEST_F(RanksRun, InFixedOrderGiveTheBitsOfOneRankAtAnyNumber) {
  ASSERT_EQ(train("one", kFixed).code, 0);
  for (int ranks : {2, 4}) {
    const std::string run = "of" + std::to_string(ranks);
    const Outcome outcome = launch(ranks, run, kFixed);
    ASSERT_EQ(outcome.code, 0) << outcome.out;
    EXPECT_EQ(fingerprint(scratch.file("one")), fingerprint(scratch.file(run))) << ranks;
  }
}

// All ranks evaluate, a batch each at a time, and at the end too: the table shows the numbers of
// the training's own row, and of one rank.
TEST_F(RanksRun, EvaluateTogetherToTheEnd) {
  auto words = kFixed;
  for (const char* word : {"validation.batch_size=4", "export.weights=best",
                           "metrics.names=[accuracy, f1_macro, log_loss, calibration_error]"})
    words.insert(words.end(), {"--set", word});
  nlohmann::json alone;
  for (int ranks : {1, 2, 4}) {
    const std::string run = "evaluated" + std::to_string(ranks);
    const Outcome outcome = ranks == 1 ? train(run, words) : launch(ranks, run, words);
    ASSERT_EQ(outcome.code, 0) << outcome.out;
    const auto last = nlohmann::json::parse(scratch.read(run + "/metrics.json"));
    std::istringstream rows(scratch.read(run + "/metrics.jsonl"));
    int found = 0;
    for (std::string line; std::getline(rows, line);) {
      const auto row = nlohmann::json::parse(line);
      if (row["step"] != last["weights_of_step"]) continue;
      for (const auto& [name, value] : last["validation"].items())
        if (row.contains("validation." + name)) {
          EXPECT_EQ(row["validation." + name], value) << name;
          ++found;
        }
    }
    EXPECT_GE(found, 5) << last;
    if (ranks == 1) alone = last;
    for (const char* split : {"validation", "test"})
      for (const auto& [name, value] : alone[split].items())
        EXPECT_NEAR(last[split][name].get<double>(), value.get<double>(), 1e-6) << name;
    EXPECT_EQ(last["test"]["accuracy"], alone["test"]["accuracy"]);
  }
}

TEST_F(RanksRun, StopTogetherAndGoOnAtAnotherNumber) {
  ASSERT_EQ(train("one", kFixed).code, 0);
  std::vector<std::string> slow = kFixed;
  const pid_t pid = start_lehr({"launch", "-n", "2", "small.yaml", "--run", "cut", "--set",
                                kFixed[1], "--set", kFixed[3], "--set", "training.max_steps=30"},
                               scratch.path, scratch.file("log"));
  ASSERT_TRUE(wait_for_manifest("cut", pid));
  kill(pid, SIGTERM);
  ASSERT_EQ(wait_for(pid), 75) << scratch.read("log");
  // all numbers of ranks go on where it stood, and end at the same bits
  const Outcome four = launch(4, "cut", kFixed);
  ASSERT_EQ(four.code, 0) << four.out;
  EXPECT_NE(four.out.find("continuing after step"), std::string::npos) << four.out;
  EXPECT_EQ(fingerprint(scratch.file("one")), fingerprint(scratch.file("cut")));
}

// Two jobs on one run folder: the second is refused, until the first is gone, however it went.
TEST_F(RanksRun, LeaveARunFolderToTheJobThatHasIt) {
  const pid_t first = start_lehr(
      {"launch", "-n", "2", "small.yaml", "--run", "one", "--set", "training.max_steps=100000"},
      scratch.path, scratch.file("log"));
  ASSERT_TRUE(wait_for_manifest("one", first));
  const std::vector<std::string> words{"--set", "training.max_steps=100000", "--set",
                                       "job.time_limit=0.001s"};
  const Outcome refused = launch(2, "one", words);
  EXPECT_EQ(refused.code, 2) << refused.out;
  EXPECT_NE(refused.out.find("is in use by another process"), std::string::npos) << refused.out;
  kill(first, SIGKILL);
  wait_for(first);
  const Outcome second = launch(2, "one", words);
  EXPECT_EQ(second.code, 75) << second.out;
  for (const auto* out : {&refused.out, &second.out})
    EXPECT_EQ(out->find("frame #"), std::string::npos) << *out;
  EXPECT_NE(second.out.find("continuing after step"), std::string::npos) << second.out;
}

TEST_F(RanksRun, GoOnInPlainOrderWithANote) {
  ASSERT_EQ(launch(2, "cut", {"--set", "job.time_limit=0.001s"}).code, 75);
  const Outcome other = launch(2, "cut", {"--set", "optimizer.lr=1"});
  EXPECT_EQ(other.code, 5) << other.out;
  EXPECT_NE(other.out.find("optimizer.lr: 0.003 -> 1"), std::string::npos) << other.out;
  EXPECT_EQ(other.out.find("restarting"), std::string::npos) << other.out;  // it cures nothing
  const Outcome three = launch(3, "cut");
  ASSERT_EQ(three.code, 0) << three.out;
  EXPECT_NE(three.out.find("2 rank(s) then, 3 now"), std::string::npos) << three.out;
  EXPECT_EQ(last_row("cut")["step"], 30);
}

TEST_F(RanksRun, SynchroniseBatchStatisticsWhenAsked) {
  // SGD, because AdamW makes large steps of a gradient that is nothing but rounding
  const std::vector<std::string> sgd{"--set", "optimizer.name=sgd"};
  ASSERT_EQ(train("one", sgd).code, 0);
  const auto distance = [&](const std::string& kind) {
    std::vector<std::string> words = sgd;
    words.insert(words.end(), {"--set", "parallelism.batch_norm=" + kind});
    const Outcome outcome = launch(2, kind, words);
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    return std::abs(last_row(kind)["validation.loss"].get<double>() -
                    last_row("one")["validation.loss"].get<double>());
  };
  EXPECT_LT(distance("synchronised"), 1e-4);
  EXPECT_GT(distance("broadcast"), 1e-4);
}

const std::vector<std::string> kShared{"--set", "parallelism.zero_stage=2", "--set",
                                       "model.batch_norm=false"};

// Optimizer state in as many parts as ranks, and on at other numbers and degrees.
TEST_F(RanksRun, ShareTheOptimizersState) {
  ASSERT_EQ(train("one", kNoNorm).code, 0);
  for (const auto& [ranks, more] :
       {std::pair<int, std::vector<std::string>>{3, {"--set", "job.time_limit=0.001s"}},
        {1, {"--set", "job.time_limit=0.001s"}},
        {4,
         {"--set", "parallelism.data_parallel_shard_degree=2", "--set", "job.time_limit=0.001s"}},
        {2, {}}}) {
    std::vector<std::string> words = kShared;
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = launch(ranks, "shared", words);
    ASSERT_EQ(outcome.code, more.empty() ? 0 : 75) << outcome.out;
  }
  const auto alone = last_row("one"), together = last_row("shared");
  for (const char* name : {"train.loss", "train.grad_norm", "validation.loss"})
    EXPECT_NEAR(together[name].get<double>(), alone[name].get<double>(), 2e-3) << name;
  EXPECT_EQ(together["samples"], alone["samples"]);
  // every step of the way: the newest of 3 ranks', of one, of 2 x 2, of 2
  const Outcome seen = lehr({"inspect", "shared/checkpoints/step-00000030"}, scratch.path);
  EXPECT_EQ(seen.code, 0) << seen.out;
  EXPECT_NE(seen.out.find("optimizer.exp_avg.fc.weight"), std::string::npos) << seen.out;
  EXPECT_NE(seen.out.find(" rows 0 to "), std::string::npos) << seen.out;
  const Outcome exported = lehr({"export", "shared", "--output", "model"}, scratch.path);
  EXPECT_EQ(exported.code, 0) << exported.out;
}

TEST_F(RanksRun, ShareTheOptimizersStateAndGoOnExactly) {
  std::vector<std::string> stopped = kShared;
  stopped.insert(stopped.end(), {"--set", "job.time_limit=0.001s"});
  ASSERT_EQ(launch(3, "whole", kShared).code, 0);
  ASSERT_EQ(launch(3, "cut", stopped).code, 75);
  ASSERT_EQ(launch(3, "cut", kShared).code, 0);
  EXPECT_EQ(fingerprint(scratch.file("whole")), fingerprint(scratch.file("cut")));
}

TEST_F(RanksRun, SayThatTheySharedOtherwise) {
  std::vector<std::string> stopped = kShared;
  stopped.insert(stopped.end(), {"--set", "job.time_limit=0.001s"});
  ASSERT_EQ(launch(2, "cut", stopped).code, 75);
  const Outcome outcome = launch(2, "cut", kNoNorm);
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("shared the optimizer's state otherwise then"), std::string::npos)
      << outcome.out;
}

TEST_F(RanksRun, TellWhatSharingSavesBefore) {
  const auto optimizer = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"check", "small.yaml", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const auto report = nlohmann::json::parse(lehr(words, scratch.path).out);
    return report["memory_bytes"]["optimizer"].get<double>();
  };
  std::vector<std::string> shared = kShared;
  shared.insert(shared.end(), {"--ranks", "4"});
  EXPECT_NEAR(optimizer(shared) / optimizer({"--ranks", "4"}), 0.25, 0.05);
}

TEST_F(RanksRun, RunUnderTorchrun) {
  const std::string torchrun = std::string(LEHR_SOURCE_DIR) + "/.deps/venv/bin/torchrun";
  if (!file_exists(torchrun)) GTEST_SKIP() << "no Python peers: run scripts/setup";
  ASSERT_EQ(train("one", kFixed).code, 0);
  const Outcome outcome = shell(
      torchrun + " --standalone --nproc-per-node 2 --no-python -- " LEHR_BINARY_DIR
                 "/lehr train small.yaml --run torchrun --set parallelism.reduction=fixed_order "
                 "--set parallelism.logical_shards=4",
      scratch.path);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("on each of 2 ranks (torchrun)"), std::string::npos) << outcome.out;
  EXPECT_EQ(fingerprint(scratch.file("one")), fingerprint(scratch.file("torchrun")));
}

TEST_F(RanksRun, TellTheirLauncherWhatWasWrong) {
  const Outcome outcome = shell("TORCHELASTIC_ERROR_FILE=$PWD/error.json " LEHR_BINARY_DIR
                                "/lehr train small.yaml --set optimizer.lr=fast",
                                scratch.path);
  EXPECT_EQ(outcome.code, 3) << outcome.out;
  const auto error = nlohmann::json::parse(scratch.read("error.json"));
  EXPECT_NE(error["message"]["message"].get<std::string>().find("optimizer.lr"), std::string::npos);
  EXPECT_TRUE(error["message"]["extraInfo"].contains("timestamp"));
  // of ranks that share a launcher it says for all whose failure it was
  const Outcome launched = shell("TORCHELASTIC_ERROR_FILE=$PWD/error.json " LEHR_BINARY_DIR
                                 "/lehr launch -n 2 small.yaml --set optimizer.lr=1e30",
                                 scratch.path);
  EXPECT_EQ(launched.code, 7) << launched.out;
  const auto cause = nlohmann::json::parse(scratch.read("error.json"))["message"]["message"];
  EXPECT_NE(cause.get<std::string>().find(" of 2 ended with code 7: "), std::string::npos) << cause;
}

TEST_F(RanksRun, AreShownToBeEquivalent) {
  const std::vector<std::string> words{"equivalence",  "small.yaml",
                                       "--ranks",      "1,2",
                                       "--accumulate", "1,2",
                                       "--steps",      "6",
                                       "--set",        "training.global_batch_size=16",
                                       "--set",        "job.output_dir=proofs"};
  std::vector<std::string> plain = words;
  plain.insert(plain.end(), kNoNorm.begin(), kNoNorm.end());
  // a warm-up longer than these runs
  plain.insert(plain.end(),
               {"--set", "lr_scheduler.name=cosine", "--set", "lr_scheduler.warmup_steps=100"});
  const Outcome rounded = lehr(plain, scratch.path);
  EXPECT_EQ(rounded.code, 0) << rounded.out;
  EXPECT_EQ(rounded.out.find("MISSED"), std::string::npos) << rounded.out;
  EXPECT_TRUE(file_exists(scratch.file("proofs")));
  EXPECT_FALSE(file_exists(scratch.file("runs")));
  std::vector<std::string> fixed = words;
  fixed.insert(fixed.end(), kFixed.begin(), kFixed.end());
  const Outcome equal = lehr(fixed, scratch.path);
  EXPECT_EQ(equal.code, 0) << equal.out;
  EXPECT_NE(equal.out.find(" 0 "), std::string::npos) << equal.out;
}

// Two ranks by hand, which need not be given the same.
TEST_F(RanksRun, RefuseARankWithAnotherRecipeOrAnotherDataSet) {
  const std::string common = "WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=" +
                             std::to_string(free_port());
  const std::string program = LEHR_BINARY_DIR "/lehr train small.yaml --run both ";
  const auto both = [&](const std::string& folder, const std::string& words) {
    return shell("(" + common + " RANK=0 LOCAL_RANK=0 " + program + "; echo lead $?) & (cd " +
                     folder + " && " + common + " RANK=1 LOCAL_RANK=1 " + program + words +
                     "; echo other $?) & wait",
                 scratch.path);
  };
  Scratch other;
  write_images(other, 204);
  write_small_recipe(other, 30, 10, "export:\n  enabled: false\n");
  for (const auto& [what, outcome] : {std::pair{"recipe", both(".", "--set optimizer.lr=0.5")},
                                      {"data set", both(other.path, "")}}) {
    EXPECT_NE(outcome.out.find(std::string("rank 1 has another ") + what + " than rank 0"),
              std::string::npos)
        << outcome.out;
    EXPECT_NE(outcome.out.find("lead 6"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("other 6"), std::string::npos) << outcome.out;
  }
}

}  // namespace lehr::testing
