// Whole runs on the stand-in device, as users start them: what they leave is what the CPU leaves.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

using Words = std::vector<std::string>;

class DeviceRun : public ::testing::Test {
 protected:
  void SetUp() override {
    write_images(scratch, 203);
    write_small_recipe(scratch, 12, 5);
  }
  Outcome run(const std::string& verb, int ranks, const std::string& device,
              const std::string& name, const Words& settings) {
    if (device == "standin") setenv("LD_PRELOAD", LEHR_BINARY_DIR "/tests/libstandin.so", 1);
    Words words{verb};
    if (verb == "launch") words.insert(words.end(), {"-n", std::to_string(ranks)});
    words.insert(words.end(), {"small.yaml", "--run", name, "--set", "training.device=" + device,
                               "--set", "training.kernels=custom"});
    for (const auto& setting : settings) words.insert(words.end(), {"--set", setting});
    const Outcome outcome = lehr(words, scratch.path);
    unsetenv("LD_PRELOAD");
    return outcome;
  }
  // Losses and metrics of all rows, which no clock has touched.
  std::vector<nlohmann::json> rows(const std::string& name) {
    std::istringstream stream(scratch.read(name + "/metrics.jsonl"));
    std::vector<nlohmann::json> rows;
    for (std::string line; std::getline(stream, line);) {
      rows.push_back(nlohmann::json::parse(line));
      for (const char* timed : {"time", "train.samples_per_s"}) rows.back().erase(timed);
    }
    return rows;
  }
  Scratch scratch;
};

struct Setting {
  const char* name;
  Words settings;
  std::vector<int> ranks;
};
const Setting kSettings[] = {
    {"plain",
     {"training.max_grad_norm=0.5", "training.ema_decay=0.9", "export.weights=ema"},
     {1, 4}},
    {"accumulated",
     {"training.gradient_accumulation_steps=2", "parallelism.batch_norm=synchronised"},
     {2}},
    {"fixed", {"parallelism.reduction=fixed_order", "parallelism.logical_shards=4"}, {2}},
    {"zero", {"parallelism.zero_stage=2", "training.precision=bf16-master"}, {2}},
};

TEST_F(DeviceRun, LeavesWhatTheCpuLeaves) {
  for (const auto& [name, settings, all] : kSettings)
    for (int ranks : all) {
      const std::string cpu = std::string(name) + "-cpu", device = std::string(name) + "-device";
      SCOPED_TRACE(::testing::Message() << device << " of " << ranks);
      const Outcome first = run("launch", ranks, "cpu", cpu, settings);
      ASSERT_EQ(first.code, 0) << first.out;
      const Outcome second = run("launch", ranks, "standin", device, settings);
      ASSERT_EQ(second.code, 0) << second.out;
      EXPECT_EQ(fingerprint(scratch.file(cpu)), fingerprint(scratch.file(device)));
      EXPECT_EQ(rows(cpu), rows(device));
      for (const char* file : {"model.safetensors", "golden.safetensors", "model.pt"})
        EXPECT_EQ(scratch.read(cpu + "/artefact/" + file),
                  scratch.read(device + "/artefact/" + file))
            << file;
      remove_tree(scratch.file(cpu)), remove_tree(scratch.file(device));
    }
}

// An invocation that may take one step only, again and again.
TEST_F(DeviceRun, GoesOnWhereItWasStopped) {
  for (const auto& [setting, ranks] : {std::pair{0, 1}, {3, 2}}) {
    SCOPED_TRACE(kSettings[setting].name);
    Words few = kSettings[setting].settings;
    few.insert(few.end(),
               {"training.max_steps=3", "validation.interval=2", "export.enabled=false"});
    const std::string whole = kSettings[setting].name, cut = whole + "-cut";
    ASSERT_EQ(run("launch", ranks, "cpu", whole, few).code, 0);
    few.push_back("job.time_limit=0.001s");
    Outcome outcome;
    int invocations = 0;
    for (outcome.code = 75; outcome.code == 75 && invocations < 5; ++invocations)
      outcome = run("launch", ranks, "standin", cut, few);
    ASSERT_EQ(outcome.code, 0) << outcome.out;
    EXPECT_EQ(invocations, 3);
    EXPECT_EQ(fingerprint(scratch.file(whole)), fingerprint(scratch.file(cut)));
  }
}

// The loop's own: a batch crosses in two copies, and the host waits once.
TEST_F(DeviceRun, CopiesAndWaitsByBudget) {
  const Words quiet{"export.enabled=false", "checkpoint.interval=1000", "validation.interval=0",
                    "model.dropout=0"};
  nlohmann::json counts[2];
  for (int i : {0, 1}) {
    Words settings = quiet;
    settings.push_back("training.max_steps=" + std::to_string(10 + 10 * i));
    setenv("LEHR_STANDIN_COUNTS", scratch.file("counts" + std::to_string(i)).c_str(), 1);
    const Outcome outcome = run("train", 1, "standin", "run" + std::to_string(i), settings);
    unsetenv("LEHR_STANDIN_COUNTS");
    ASSERT_EQ(outcome.code, 0) << outcome.out;
    for (const auto& file : std::filesystem::directory_iterator(scratch.path))
      if (file.path().filename().string().starts_with("counts" + std::to_string(i)))
        counts[i] = nlohmann::json::parse(read_file(file.path().string()));
  }
  const auto of_ten = [&](const char* what) {
    return counts[1][what].get<int>() - counts[0][what].get<int>();
  };
  EXPECT_EQ(of_ten("in"), 20);   // inputs and targets
  EXPECT_EQ(of_ten("out"), 10);  // loss and norm
  EXPECT_EQ(of_ten("waits"), 10);
}

TEST_F(DeviceRun, IsNothingThatTheProgramKnows) {
  const Words words{"check", "small.yaml", "--set", "training.device=standin"};
  const Outcome outcome = lehr(words, scratch.path);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.out.find("must be auto, cpu or cuda"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace lehr::testing
