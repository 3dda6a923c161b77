// Who looks at a run changes nothing in it, whether it lies still or trains meanwhile.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {

class Looking : public ::testing::Test {
 protected:
  void SetUp() override {
    write_images(scratch, 100);
    write_small_recipe(scratch, 20, 5);
  }
  // names, kinds, times and contents
  std::string snapshot(const std::string& folder) {
    return shell("find " + folder + " -printf '%p %y %T@ %s\\n' | sort; find " + folder +
                     " -type f -print0 | sort -z | xargs -0 md5sum",
                 scratch.path)
        .out;
  }
  Outcome begin_at(const std::string& field, const std::string& run, int launch = 0) {
    std::vector<std::string> words{"small.yaml", "--run", run, "--set", field};
    for (const char* set : {"training.max_steps=20", "export.enabled=false"})
      words.insert(words.end(), {"--set", set});
    words.insert(words.begin(), launch ? "launch" : "train");
    if (launch) words.insert(words.begin() + 1, {"-n", std::to_string(launch)});
    return lehr(words, scratch.path);
  }
  Scratch scratch;
};

TEST_F(Looking, LeavesARunAsItIs) {
  ASSERT_EQ(lehr({"train", "small.yaml", "--run", "run"}, scratch.path).code, 0);
  // the newest is damaged, and a save and a removal were cut
  const std::string checkpoints = "run/checkpoints/";
  std::string bytes = scratch.read(checkpoints + "step-00000020/model.safetensors");
  bytes.back() ^= 1;
  scratch.write(checkpoints + "step-00000020/model.safetensors", bytes);
  for (const char* name : {"step-00000025.tmp-0a", ".trash-step-00000001-0b"}) {
    make_folders(scratch.file(checkpoints + name));
    scratch.write(checkpoints + name + "/file", "x");
  }
  const std::string before = snapshot("run");
  const auto looks = [&](const Outcome& outcome, int code, const std::string& says) {
    EXPECT_EQ(outcome.code, code) << outcome.out;
    EXPECT_NE(outcome.out.find(says), std::string::npos) << outcome.out;
    EXPECT_EQ(before, snapshot("run")) << outcome.out;
  };
  const auto verb = [&](const std::vector<std::string>& words) {
    return lehr(words, scratch.path);
  };
  const std::string passed = "step-00000020/model.safetensors";
  looks(verb({"export", "run", "--output", "a"}), 0, passed);
  looks(verb({"export", "run/checkpoints", "--output", "b"}), 0, passed);
  looks(verb({"export", "run/checkpoints/step-00000015", "--output", "c"}), 0, "artefact: c");
  looks(verb({"generate", "run"}), 2, "is no language model");
  looks(verb({"inspect", "run"}), 0, "step 15");
  looks(verb({"inspect", "run/checkpoints/step-00000015"}), 0, "every byte verified");
  looks(verb({"inspect", "run/artefact"}), 0, "artefact");
  looks(verb({"evaluate", "run/artefact", "--data", "test-images", "test-labels"}), 0, "accuracy");
  looks(verb({"predict", "run/artefact", "--input", "test-images", "--output", "p.csv"}), 0,
        "p.csv");
  looks(verb({"tokenize", "small.yaml", "--tokenizer", "byte", "--output", "run"}), 2, "not empty");
  looks(begin_at("model.init_from=run", "init"), 0, "weights start from run");
  looks(begin_at("checkpoint.resume=run", "resumed"), 0, "continuing after step 15");
  looks(begin_at("model.init_from=run", "inits", 2), 0, "weights start from run");
  // a run and its checkpoints/ are the same source
  EXPECT_EQ(scratch.read("a/model.safetensors"), scratch.read("b/model.safetensors"));
}

TEST_F(Looking, DisturbsNoTraining) {
  const pid_t training =
      start_lehr({"train", "small.yaml", "--run", "run", "--set", "training.max_steps=1000000",
                  "--set", "checkpoint.interval=1", "--set", "validation.interval=2", "--set",
                  "checkpoint.keep_latest_k=2"},
                 scratch.path, scratch.file("log"));
  ASSERT_TRUE(wait_for(
      [&] {
        return file_exists(scratch.file("run/metrics.jsonl")) &&
               !list_folder(scratch.file("run/checkpoints")).empty();
      },
      60, training));
  for (int i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i);
    const Outcome generated = lehr({"generate", "run"}, scratch.path);
    EXPECT_EQ(generated.code, 2) << generated.out;
    EXPECT_EQ(generated.out.find("warning"), std::string::npos) << generated.out;
    const Outcome seen = lehr({"inspect", "run"}, scratch.path);
    EXPECT_EQ(seen.code, 0) << seen.out;
    EXPECT_EQ(seen.out.find("cannot open"), std::string::npos) << seen.out;
    const Outcome begun = begin_at("model.init_from=run", "begun" + n);
    EXPECT_EQ(begun.code, 0) << begun.out;
    EXPECT_EQ(::waitpid(training, nullptr, WNOHANG), 0) << scratch.read("log");
  }
  const Outcome ranks = begin_at("model.init_from=run", "ranks", 2);
  EXPECT_EQ(ranks.code, 0) << ranks.out;
  const Outcome exported = lehr({"export", "run", "--output", "model"}, scratch.path);
  EXPECT_EQ(exported.code, 0) << exported.out;
  kill(training, SIGTERM);
  EXPECT_EQ(wait_for(training), 75) << scratch.read("log");
}

}  // namespace lehr::testing
