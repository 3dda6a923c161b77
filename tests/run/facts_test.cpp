// What a resume compares, and where a moved project finds its data.
#include "engine/run/facts.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "engine/run/fields.h"
#include "engine/run/plan.h"

namespace lehr::run {
namespace {

recipe::Recipe recipe_with(const std::vector<std::string>& overrides) {
  return recipe::Recipe::parse(
      "data: {source: csv, train_file: a.csv, target: y}\ntraining: {global_batch_size: 8}\n",
      "r.yaml", overrides, all_sections());
}

TEST(Facts, DifferWhereBitsDoAndNowhereElse) {
  const Surroundings cpu{"b1", "cpu", "AVX2", "d1", 4, 1}, gpu{"b1", "H100", "AVX2", "d1", 4, 1};
  struct Case {
    Surroundings then, now;
    std::vector<std::string> overrides, lines;
  };
  auto with = [](Surroundings around, auto Surroundings::*member, auto value) {
    around.*member = value;
    return around;
  };
  const std::vector<Case> cases = {
      {cpu, cpu, {}, {}},
      {cpu, with(cpu, &Surroundings::threads, 8), {}, {"threads: 4 then, 8 now"}},
      {cpu,
       with(cpu, &Surroundings::cpu_capability, "AVX512"),
       {},
       {"cpu_capability: AVX2 then, AVX512 now"}},
      // on a GPU the host decides nothing
      {gpu, with(gpu, &Surroundings::threads, 8), {}, {}},
      {gpu, with(gpu, &Surroundings::cpu_capability, "AVX512"), {}, {}},
      {gpu, cpu, {}, {"device: H100 then, cpu now"}},
      {cpu, with(cpu, &Surroundings::build, "b2"), {}, {"build: b1 then, b2 now"}},
      {cpu, with(cpu, &Surroundings::data, "d2"), {}, {"data: d1 then, d2 now"}},
      {cpu, with(cpu, &Surroundings::world, 2), {}, {}},
      // what was written for threads, device and data is less than what came of it
      {cpu, cpu, {"training.threads=4", "training.device=cpu", "data.train_file=/b/a.csv"}, {}},
      {cpu, cpu, {"job.name=x", "checkpoint.interval=5"}, {}},
      {cpu, cpu, {"optimizer.lr=1"}, {"optimizer.lr: 0.001 -> 1"}}};
  const auto before = recipe_with({});
  for (const auto& c : cases) {
    const std::string facts = facts_json({}, c.then, "{}", "", "runs/r-1");
    EXPECT_EQ(differences(facts, c.now, before, recipe_with(c.overrides)), c.lines);
  }
}

TEST(Facts, LeadAMovedProjectToItsData) {
  namespace fs = std::filesystem;
  const fs::path here = fs::current_path();
  const std::string facts = facts_json({}, {}, "{}", "old/recipes", "old/runs/r-1");
  EXPECT_EQ(recipe_folders_of(facts, "new/runs/r-1"),
            (std::vector<std::string>{here / "new/recipes", here / "old/recipes"}));
  // of a release that kept the folder alone
  EXPECT_EQ(recipe_folders_of(R"({"recipe_folder": "/p"})", "new/runs/r-1"),
            (std::vector<std::string>{"/p"}));
}

TEST(Plan, DurationsBeyondAnyCountDoNotTurnRound) {
  Plan plan;
  plan.steps_per_epoch = 10, plan.global_batch = 4, plan.context = 8;
  using Unit = Duration::Unit;
  for (const Unit unit : {Unit::kSteps, Unit::kEpochs, Unit::kSamples, Unit::kTokens})
    for (const double value : {1e30, 1e300, std::numeric_limits<double>::infinity()})
      EXPECT_EQ(in_steps({value, unit}, plan), 1'000'000'000'000);
  EXPECT_EQ(in_steps({2.5, Unit::kEpochs}, plan), 25);
}

}  // namespace
}  // namespace lehr::run
