// Which run a command continues, begins or refuses, and where it looks for what belongs to it.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {

class RunFolders : public ::testing::Test {
 protected:
  void SetUp() override {
    write_images(scratch, 60);
    write_small_recipe(scratch, 4, 100, "export:\n  enabled: false\n");
  }
  Outcome train(const std::vector<std::string>& set, std::vector<std::string> more = {}) {
    std::vector<std::string> words{"train", "small.yaml"};
    for (const auto& value : set) words.insert(words.end(), {"--set", value});
    words.insert(words.end(), more.begin(), more.end());
    return lehr(words, scratch.path);
  }
  // of one step
  Outcome cut(std::vector<std::string> set, std::vector<std::string> more = {}) {
    set.emplace_back("job.time_limit=0.001s");
    return train(set, std::move(more));
  }
  std::vector<std::string> runs(const std::string& folder = "runs") {
    return list_folder(scratch.file(folder));
  }
  static void expect(const Outcome& outcome, int code, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.code, code) << outcome.out;
    for (const auto& part : parts)
      EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in\n" << outcome.out;
  }
  Scratch scratch;
};

using Names = std::vector<std::string>;

TEST_F(RunFolders, ContinueWhereOnlyFreeFieldsChanged) {
  expect(cut({"training.max_steps=9"}), 75, {"runs/small-1: beginning"});
  for (const char* free : {"checkpoint.keep_latest_k=5", "metrics.log_interval=2ep",
                           "training.non_finite=skip", "export.weights=last"}) {
    const std::string key = std::string(free).substr(0, std::string(free).find('='));
    expect(cut({"training.max_steps=9", free}), 75,
           {"runs/small-1: continuing after step", "from here on " + key + ": "});
    ASSERT_EQ(runs(), Names{"small-1"});
  }
}

TEST_F(RunFolders, NameTheUnfinishedRunThatDiffersWhenAnotherBegins) {
  ASSERT_EQ(cut({}).code, 75);
  expect(cut({"optimizer.lr=1e-2"}), 75,
         {"runs/small-2: beginning",
          "runs/small-1 is unfinished at step 1 and differs in optimizer.lr: 0.003 -> 0.01; --run "
          "runs/small-1 --allow-approximate-resume"});
  // each goes on by its own command
  expect(cut({}), 75, {"runs/small-1: continuing after step 1"});
  expect(cut({"optimizer.lr=1e-2"}), 75, {"runs/small-2: continuing after step 1"});
  EXPECT_EQ(cut({}, {"--fresh"}).out.find("unfinished"), std::string::npos);
  std::filesystem::create_symlink("gone", scratch.file("runs/small-9"));
  expect(cut({}, {"--fresh"}), 75, {"runs/small-10: beginning"});
  expect(cut({}), 75, {"runs/small-9 is a link that leads nowhere", "runs/small-10: continuing"});
}

TEST_F(RunFolders, NameTheFinishedRunThatMoreIsAskedOfAndBeginWhereTheRecipeSays) {
  ASSERT_EQ(train({"training.max_steps=3"}).code, 0);
  EXPECT_NE(scratch.read("runs/small-1/log.txt").find("data: train"), std::string::npos);
  expect(
      cut({"training.max_steps=9"}), 75,
      {"runs/small-2: beginning",
       "runs/small-1 is finished and differs in training.max_steps: 3 -> 9; --run runs/small-1"});
  // the unfinished one did not begin there
  expect(cut({"training.max_steps=9", "checkpoint.resume=runs/small-1"},
             {"--allow-approximate-resume"}),
         75, {"runs/small-3: continuing after step 3"});
  expect(cut({"training.max_steps=9", "checkpoint.resume=runs/small-1"},
             {"--allow-approximate-resume"}),
         75, {"runs/small-3: continuing after step 4"});
}

// `never` in a recipe is --fresh; what was begun by either goes on in its own folder.
TEST_F(RunFolders, ThatBeginAnewNameTheCommandThatContinues) {
  const std::string never = "checkpoint.resume=never";
  expect(cut({}, {"--fresh"}), 75, {"small-1: beginning", "Without --fresh the same command"});
  expect(cut({}), 75, {"small-1: continuing after step 1", ". The same command continues."});
  for (const char* folder : {"small-2", "small-3"})
    expect(cut({never}), 75,
           {std::string(folder) + ": beginning",
            std::string("With --run runs/") + folder + " --set checkpoint.resume=auto the same"});
  for (const auto& [more, remedy] :
       {std::pair{Names{}, "checkpoint.resume=auto"}, {Names{"--fresh"}, "another folder"}}) {
    auto words = more;
    words.insert(words.end(), {"--run", "runs/small-3"});
    expect(cut({never}, words), 2, {"runs/small-3: this folder holds a run already", remedy});
  }
  expect(cut({"checkpoint.resume=auto"}, {"--run", "runs/small-3"}), 75, {"after step 1"});
  // ranks that a launcher starts again
  const std::string again =
      "env RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 "
      "MASTER_PORT=1 TORCHELASTIC_RUN_ID=x TORCHELASTIC_RESTART_COUNT=1 " LEHR_BINARY_DIR
      "/lehr train small.yaml --set job.time_limit=0.001s --fresh --set " +
      never;
  expect(shell(again, scratch.path), 75, {"small-3: continuing after step 2"});
}

TEST_F(RunFolders, LieBelowOneAnotherByTheirNames) {
  for (const char* lr : {"optimizer.lr=1e-3", "optimizer.lr=2e-3"})
    expect(cut({"job.name=exp/lr", lr}, {"--fresh"}), 75, {": beginning"});
  EXPECT_EQ(runs("runs/exp"), (Names{"lr-1", "lr-2"}));
  expect(cut({"job.name=exp/lr", "optimizer.lr=1e-3"}), 75, {"runs/exp/lr-1: continuing"});
  expect(train({"job.name=../up"}), 3, {"--set job.name: ", "begins a name with `.`"});
  ASSERT_EQ(shell("cp small.yaml .odd.yaml", scratch.path).code, 0);
  expect(lehr({"train", ".odd.yaml"}, scratch.path), 3, {"'.odd' begins a name", "set job.name"});
  EXPECT_EQ(runs(), Names{"exp"});
}

TEST_F(RunFolders, OfARefusedPlanAreNotLeftBehind) {
  expect(train({"optimizer.freeze=[nothing]"}), 3, {"--set optimizer.freeze", "matches no"});
  expect(train({"model.init_from=nowhere"}), 5, {"nowhere"});
  expect(train({"optimizer.freeze=[nothing]"}, {"--run", "own"}), 3, {"matches no"});
  EXPECT_EQ(runs(), Names{});
  EXPECT_FALSE(file_exists(scratch.file("own")));
}

TEST_F(RunFolders, OfParallelStartsAreOneEach) {
  const auto start = [&](int n, const std::vector<std::string>& words) {
    std::vector<pid_t> pids;
    std::vector<int> codes;
    for (int i = 0; i < n; ++i)
      pids.push_back(start_lehr(words, scratch.path, scratch.file("log")));
    for (pid_t pid : pids) codes.push_back(wait_for(pid));
    return codes;
  };
  EXPECT_EQ(start(4, {"train", "small.yaml", "--fresh"}), (std::vector<int>{0, 0, 0, 0}));
  EXPECT_EQ(runs(), (Names{"small-1", "small-2", "small-3", "small-4"})) << scratch.read("log");
  // one has the run that is to be continued, the other is told who
  ASSERT_EQ(cut({"optimizer.lr=1"}).code, 75);
  for (int code : start(2, {"train", "small.yaml", "--set", "optimizer.lr=1"}))
    EXPECT_TRUE(code == 0 || code == 2) << scratch.read("log");
  EXPECT_EQ(runs().size(), 5u);
  EXPECT_TRUE(file_exists(scratch.file("runs/small-5/finished.json")));
}

TEST_F(RunFolders, OfFinishedRunsSayWhatMoreIsAsked) {
  ASSERT_EQ(train({}).code, 0);
  const std::string done = "runs/small-1 is finished (by training.max_steps)";
  expect(train({}), 0, {done, "--fresh"});
  // nothing that would be trained
  expect(train({"checkpoint.keep_latest_k=7"}, {"--run", "runs/small-1"}), 0,
         {done, "without effect on it: checkpoint.keep_latest_k: 3 -> 7"});
  EXPECT_EQ(runs(), Names{"small-1"});
  for (const char* more : {"training.max_steps=90", "optimizer.lr=1", "model.channels=[4, 4]"}) {
    const std::string key = std::string(more).substr(0, std::string(more).find('='));
    expect(train({more}, {"--run", "runs/small-1"}), 2,
           {"this run is finished (by training.max_steps), and something else is asked of it",
            key + ": ", "--run NEW", "model.init_from=runs/small-1",
            "checkpoint.resume=runs/small-1 --allow-approximate-resume"});
  }
  // the way that it names
  expect(train({"training.max_steps=6", "checkpoint.resume=runs/small-1"},
               {"--run", "more", "--allow-approximate-resume"}),
         0, {"training.max_steps: 4 -> 6", "continuing after step 4"});
  ASSERT_EQ(train({}, {"--fresh"}).code, 0);
  EXPECT_EQ(runs(), (Names{"small-1", "small-2"}));
  const auto results = nlohmann::json::parse(scratch.read("runs/small-1/finished.json"));
  EXPECT_EQ(results["reason"], "training.max_steps");
  // its data renewed
  write_images(scratch, 61);
  expect(train({}), 2, {"data: ", " then, ", " now", "--fresh"});
  // in epochs, and by the clock
  ASSERT_EQ(train({"training.max_steps=null", "training.max_epochs=1"}, {"--run", "e"}).code, 0);
  EXPECT_EQ(nlohmann::json::parse(scratch.read("e/finished.json"))["reason"],
            "training.max_epochs");
  ASSERT_EQ(train({"training.max_steps=100000", "training.max_time=0.01s"}, {"--run", "t"}).code,
            0);
  expect(train({"training.max_steps=100000", "training.max_time=1h"}, {"--run", "t"}), 2,
         {"is finished (by training.max_time)", "training.max_time: 0.01s -> 3600s"});
}

TEST_F(RunFolders, MovedWithTheirDataAreReadWhereTheyLieNow) {
  ASSERT_EQ(shell("mkdir -p one && mv small.yaml t*-* one", scratch.path).code, 0);
  const std::string one = scratch.file("one"), two = scratch.file("two");
  ASSERT_EQ(lehr({"train", "small.yaml"}, one).code, 0);
  ASSERT_EQ(shell("mv one two", scratch.path).code, 0);
  expect(lehr({"export", "runs/small-1", "--output", "m"}, two), 0, {"artefact: m"});
  expect(lehr({"train", "small.yaml"}, two), 0, {"is finished"});
  // the data elsewhere, then other data
  ASSERT_EQ(shell("mkdir data && mv two/t*-* data", scratch.path).code, 0);
  expect(lehr({"export", "runs/small-1", "--output", "n"}, two), 4,
         {"two/train-images", "--set data."});
  std::vector<std::string> words{"export", "runs/small-1", "--output", "n"};
  for (const char* name : {"train_images=../data/train-images", "train_labels=../data/train-labels",
                           "test_images=../data/test-images", "test_labels=../data/test-labels"})
    words.insert(words.end(), {"--set", "data." + std::string(name)});
  expect(lehr(words, two), 0, {"artefact: n"});
  words[3] = "o";
  auto other = words;
  other.insert(other.end(), {"--set", "model.hidden=8"});
  expect(lehr(other, two), 2, {"cannot be changed after training: model.hidden: 16 -> 8"});
  ASSERT_EQ(shell("cp data/test-images data/train-images", scratch.path).code, 0);
  expect(lehr(words, two), 4, {"are not those that this model was trained on"});
}

}  // namespace lehr::testing
