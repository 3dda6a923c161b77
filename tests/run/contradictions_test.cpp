// What fields say against one another is told with its place before any data is opened: none is
// here.
#include "engine/run/contradictions.h"

#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/run/fields.h"
#include "engine/run/plan.h"

namespace lehr::run {
namespace {

constexpr const char* kTable = R"(data: {source: csv, train_file: gone.csv, target: y}
loss: {name: cross_entropy}
training: {global_batch_size: 32, max_steps: 20}
)";
constexpr const char* kValues = R"(data: {source: csv, train_file: gone.csv, target: y}
loss: {name: mse}
training: {global_batch_size: 32, max_steps: 20}
)";
constexpr const char* kPictures = R"(data: {source: image_folder, train_folder: gone}
training: {global_batch_size: 32, max_steps: 20}
)";
constexpr const char* kText = R"(data: {source: text, train_file: gone.txt}
model: {name: gpt2}
training: {global_batch_size: 32, max_steps: 20}
)";

std::string refusal(const std::string& text, const std::vector<std::string>& overrides,
                    int64_t ranks = 1) {
  try {
    check_contradictions(recipe::Recipe::parse(text, "r.yaml", overrides, all_sections()), ranks);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kRecipe);
    return error.what();
  }
  return "";
}

TEST(Contradictions, AreToldInTheFieldThatIsToChange) {
  struct Case {
    const char* recipe;
    std::vector<std::string> overrides;
    std::string begins, holds;
    int64_t ranks = 1;
  };
  const std::vector<Case> cases = {
      {kTable, {"checkpoint.keep_best_k=0"}, "--set checkpoint.keep_best_k: ", "export.weights"},
      {kTable, {"export.weights=ema"}, "--set export.weights: ", "training.ema_decay, e.g. 0.999"},
      {kPictures, {"data.resize=200"}, "--set data.resize: ", "200 is below image_size 224"},
      {kTable, {"training.ema_decay=1"}, "--set training.ema_decay: ", "0.999 is usual"},
      {kTable,
       {"training.max_steps=null"},
       "--set training.max_steps: training.max_epochs: nothing says",
       "max_steps"},
      {kTable,
       {"training.global_batch_size=null"},
       "--set training.global_batch_size: ",
       "missing"},
      {kTable,
       {"training.micro_batch_size=5", "training.gradient_accumulation_steps=3"},
       "r.yaml:3:12: training.global_batch_size: 32 is not micro_batch_size 5 x "
       "gradient_accumulation_steps 3 x 2 rank(s) = 30",
       "",
       2},
      {kTable, {"training.micro_batch_size=64"}, "--set training.micro_batch_size: ", "lower"},
      {kTable,
       {"parallelism.reduction=fixed_order", "training.micro_batch_size=4"},
       "--set training.micro_batch_size: ",
       "logical_shards"},
      {kTable,
       {"parallelism.reduction=fixed_order"},
       "--set parallelism.reduction: parallelism.logical_shards: 8 logical shards on 3",
       "",
       3},
      {kTable,
       {"parallelism.zero_stage=1", "parallelism.data_parallel_shard_degree=2"},
       "--set parallelism.data_parallel_shard_degree: 3 ranks are no groups of 2",
       "",
       3},
      {kTable,
       {"checkpoint.interval=1e6tok"},
       "--set checkpoint.interval: `1000000tok`",
       "samples"},
      {kTable, {"validation.interval=1e6tok"}, "--set validation.interval: ", "samples"},
      {kTable, {"metrics.log_interval=1e6tok"}, "--set metrics.log_interval: ", "samples"},
      {kTable,
       {"lr_scheduler.warmup_steps=21"},
       "--set lr_scheduler.warmup_steps: 21 steps",
       "longer"},
      {kTable,
       {"lr_scheduler.name=step", "lr_scheduler.step_size=5", "lr_scheduler.warmup_steps=21"},
       "--set lr_scheduler.warmup_steps: 21 steps",
       "longer"},
      {kTable,
       {"lr_scheduler.name=cosine", "lr_scheduler.warmup_steps=20"},
       "--set lr_scheduler.warmup_steps: 20 steps",
       "longer"},
      {kTable,
       {"lr_scheduler.name=step"},
       "--set lr_scheduler.name: lr_scheduler.step_size: ",
       "milestones"},
      {kTable, {"training.max_time=0s"}, "--set training.max_time: must be above 0", ""},
      {kTable, {"parallelism.timeout=0s"}, "--set parallelism.timeout: must be above 0", ""},
      {kTable, {"parallelism.heartbeat=0s"}, "--set parallelism.heartbeat: must be above 0", ""},
      {kTable, {"optimizer.betas=[0.9]"}, "--set optimizer.betas: ", "[0.9, 0.999]"},
      {kTable,
       {"optimizer.name=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"},
       "--set optimizer.nesterov: ",
       "momentum"},
      {kTable, {"loss.class_weights=[0, 0]"}, "--set loss.class_weights: ", "above 0"},
      {kTable, {"export.layout=triton"}, "--set export.layout: ", "images"},
      {kTable, {"profiling.file=metrics.jsonl"}, "--set profiling.file: ", "trace.json"},
      {kTable,
       {"model.pretrained=x", "model.init_from=y"},
       "--set model.pretrained: ",
       "model.init_from"},
      {kTable,
       {"checkpoint.resume=x", "model.init_from=y"},
       "--set checkpoint.resume: ",
       "model.init_from"},
      {kTable,
       {"early_stopping.patience=3", "validation.interval=0"},
       "--set early_stopping.patience: ",
       "validation.interval"},
      {kTable,
       {"early_stopping.patience=3", "data.validation_fraction=0"},
       "--set early_stopping.patience: ",
       "data.validation_fraction"},
      {kTable,
       {"validation.interval=5", "data.validation_fraction=0"},
       "--set validation.interval: ",
       "data.validation_fraction"},
      {kTable,
       {"validation.monitor=accuracy", "data.validation_fraction=0"},
       "--set validation.monitor: ",
       "data.validation_fraction"},
      // what others call it
      {kTable, {"validation.monitor=val_loss"}, "--set validation.monitor: ", "mean loss?"},
      {kTable, {"validation.monitor=val/acc"}, "--set validation.monitor: ", "mean accuracy?"},
      {kTable, {"validation.monitor=AUC"}, "--set validation.monitor: ", "mean roc_auc?"},
      {kTable, {"validation.monitor=rmse"}, "--set validation.monitor: ", "log_loss"},
      {kTable,
       {"validation.monitor=accuracy", "metrics.names=[log_loss]"},
       "--set validation.monitor: accuracy is not among what an evaluation gives: loss, log_loss",
       "metrics.names"},
      {kTable, {"metrics.names=[acc]"}, "--set metrics.names: ", "mean accuracy?"},
      {kValues, {"validation.monitor=RMSE"}, "--set validation.monitor: ", "mean rmse?"},
      {kValues, {"validation.monitor=los"}, "--set validation.monitor: ", "mean loss?"},
      {kValues,
       {"validation.monitor=accuracy"},
       "--set validation.monitor: ",
       "loss, rmse, mae, r2"},
      {kText, {"validation.monitor=val_ppl"}, "--set validation.monitor: ", "mean perplexity?"},
      {kText, {"metrics.names=[accuracy]"}, "--set metrics.names: ", "remove"},
      {kText, {"loss.name=mse"}, "--set loss.name: ", "cross_entropy"},
      {kText, {"loss.class_weights=[1, 2]"}, "--set loss.class_weights: ", "remove"},
  };
  for (const auto& c : cases) {
    const std::string said = refusal(c.recipe, c.overrides, c.ranks);
    EXPECT_EQ(said.substr(0, c.begins.size()), c.begins) << said;
    EXPECT_NE(said.find(c.holds), std::string::npos) << c.holds << " in\n" << said;
    // one mistake, one message
    EXPECT_EQ(said.find("--set", 1), std::string::npos) << said;
  }
}

TEST(Contradictions, AreToldAllAtOnceByLine) {
  const std::string said = refusal(
      "data: {source: csv, train_file: gone.csv, target: y}\n"
      "export:\n  weights: ema\n"
      "optimizer: {betas: [1, 2]}\n",
      {});
  for (const char* part : {"r.yaml: training.global_batch_size", "r.yaml: training.max_epochs",
                           "r.yaml:3:3: export.weights", "r.yaml:4:13: optimizer.betas"})
    EXPECT_NE(said.find(part), std::string::npos) << part << " in\n" << said;
}

TEST(Contradictions, AreNoneWhereAFieldHasAUseAfterAll) {
  struct Case {
    const char* recipe;
    std::vector<std::string> overrides;
    int64_t ranks = 1;
  };
  for (const auto& c : std::vector<Case>{
           {kTable, {}},
           {kValues, {"validation.monitor=r2"}},
           {kText, {"checkpoint.interval=1e6tok", "validation.interval=1e6tok"}},
           {kTable, {"checkpoint.keep_best_k=0", "export.weights=last"}},
           {kTable, {"checkpoint.keep_best_k=0", "data.validation_fraction=0"}},
           {kTable, {"export.weights=ema", "training.ema_decay=0.99"}},
           {kTable, {"lr_scheduler.warmup_steps=20"}},
           {kTable, {"training.max_steps=0"}},
           {kTable, {"validation.interval=0", "data.validation_fraction=0"}},
           {kTable, {"early_stopping.min_delta=0.1"}},
           {kTable, {"export.layout=triton", "export.enabled=false"}},
           {kTable, {"parallelism.reduction=fixed_order"}, 8},
           {kTable, {"parallelism.zero_stage=1", "parallelism.data_parallel_shard_degree=2"}},
           {kTable, {"metrics.names=[top_3_accuracy]", "validation.monitor=top_3_accuracy"}}})
    EXPECT_EQ(refusal(c.recipe, c.overrides, c.ranks), "");
}

TEST(Plan, CountsEveryUnitInSteps) {
  using Unit = Duration::Unit;
  Plan plan;
  plan.global_batch = 8, plan.context = 16, plan.steps_per_epoch = 50;
  const std::pair<Duration, int64_t> cases[] = {
      {{7, Unit::kSteps}, 7},      {{2, Unit::kEpochs}, 100},   {{0.001, Unit::kEpochs}, 1},
      {{80, Unit::kSamples}, 10},  {{81, Unit::kSamples}, 11},  {{1, Unit::kSamples}, 1},
      {{1280, Unit::kTokens}, 10}, {{1281, Unit::kTokens}, 11}, {{1, Unit::kTokens}, 1},
      {{0, Unit::kTokens}, 0},     {{30, Unit::kSeconds}, 0}};
  for (const auto& [length, steps] : cases)
    EXPECT_EQ(in_steps(length, plan), steps) << to_string(length);
}

}  // namespace
}  // namespace lehr::run
