// Optimizer state shared among ranks: the update of one, rows that add up to the whole, and the
// memory that was promised.
#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "engine/base/error.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

struct Outcome {
  NamedTensors weights, averaged, state;
  std::map<std::string, Rows> rows;
  std::vector<double> losses, norms;
  int64_t skipped = 0;
};

struct Setting {
  int size = 1;
  int64_t micro_batches = 1;
  toy::Shape shape{.widths = {5, 7, 3}, .batch_norm = false};
};

// Six steps of 16, 16, 13, 5, 2 and 16 samples, in `micro_batches` on each rank where there are
// enough samples.
std::vector<Outcome> train(const Setting& setting, const FixedFields& fields) {
  auto worlds = dist::thread_worlds(setting.size);
  std::vector<Outcome> outcomes(worlds.size());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < setting.size; ++rank)
    threads.emplace_back([&, rank] {
      auto model = toy::mlp(setting.shape);
      StepContext context;
      context.world = worlds[static_cast<size_t>(rank)].get();
      Step step(model, fields, context);
      Outcome& outcome = outcomes[static_cast<size_t>(rank)];
      for (uint64_t i = 0; i < 6; ++i) {
        const int64_t count = i == 2   ? 13
                              : i == 4 ? 2
                                       : 16,
                      parts = setting.size * setting.micro_batches;
        const Batch whole = toy::classes(count, 5, 3, i);
        std::vector<Batch> micro;
        for (int64_t m = rank * setting.micro_batches; m < (rank + 1) * setting.micro_batches;
             ++m) {
          const int64_t from = count * m / parts, to = count * (m + 1) / parts;
          if (from < to) micro.push_back(toy::rows(whole, from, to));
        }
        const StepReport report = step.take(micro, [&](double) {
          return Beside{{1, static_cast<double>(rank)}};
        });
        EXPECT_EQ(report.samples, count);
        EXPECT_EQ(report.aside, (std::vector<double>{1.0 * setting.size,
                                                     setting.size * (setting.size - 1) / 2.0}));
        outcome.losses.push_back(report.loss);
        outcome.norms.push_back(report.grad_norm);
      }
      outcome.weights = toy::copy(step.weights());
      outcome.averaged = toy::copy(step.averaged());
      outcome.state = toy::copy(step.state());
      outcome.rows = step.rows();
    });
  for (auto& thread : threads) thread.join();
  return outcomes;
}

// The state of the `degree` ranks that share, joined.
NamedTensors joined(const std::vector<Outcome>& all, size_t degree, const NamedTensors& like) {
  NamedTensors whole;
  for (const auto& t : like) {
    std::vector<at::Tensor> parts;
    int64_t next = 0;
    for (size_t r = 0; r < degree; ++r)
      for (const auto& mine : all[r].state) {
        if (mine.name != t.name) continue;
        if (!all[r].rows.contains(t.name)) {  // every rank has all of it
          if (r == 0) parts.push_back(mine.tensor);
          continue;
        }
        const Rows rows = all[r].rows.at(t.name);
        EXPECT_EQ(rows.first, next) << t.name;
        EXPECT_EQ(rows.count, mine.tensor.size(0));
        EXPECT_EQ(rows.of, t.tensor.size(0));
        next += rows.count;
        parts.push_back(mine.tensor);
      }
    whole.push_back({t.name, at::cat(parts)});
  }
  return whole;
}

FixedFields fields(int64_t stage, int64_t degree = 0) {
  return FixedFields({{"parallelism.zero_stage", stage},
                      {"parallelism.data_parallel_shard_degree", degree},
                      {"training.max_grad_norm", 0.5},
                      {"optimizer.lr", 0.01}});
}

void expect_the_update_of_one(FixedFields all, const Setting& setting, int64_t stage,
                              int64_t degree) {
  const Outcome alone = train({1, setting.micro_batches, setting.shape}, all)[0];
  all.set("parallelism.zero_stage", stage).set("parallelism.data_parallel_shard_degree", degree);
  const auto shared = train(setting, all);
  const auto each = static_cast<size_t>(degree == 0 ? setting.size : degree);
  SCOPED_TRACE(::testing::Message()
               << setting.size << " ranks, stage " << stage << ", degree " << degree);
  EXPECT_LT(toy::largest_difference(joined(shared, each, alone.state), alone.state), 1e-6);
  for (const auto& outcome : shared) {
    EXPECT_LT(toy::largest_difference(outcome.weights, alone.weights), 1e-6);
    EXPECT_TRUE(toy::same_bits(outcome.weights, shared[0].weights));
    EXPECT_LT(toy::largest_difference(outcome.averaged, alone.averaged), 1e-6);
    for (size_t i = 0; i < alone.losses.size(); ++i) {
      EXPECT_NEAR(outcome.losses[i], alone.losses[i], 1e-6);
      EXPECT_NEAR(outcome.norms[i], alone.norms[i], 1e-6);
    }
  }
}

TEST(Zero, GivesTheUpdateOfOne) {
  for (int64_t stage : {1, 2})
    for (auto [size, degree] : {std::pair{2, 0}, {3, 0}, {4, 0}, {4, 2}, {4, 1}})
      for (int64_t micro : {1, 3})
        expect_the_update_of_one(fields(0), {size, micro}, stage, degree);
}

TEST(Zero, GivesTheUpdateOfOneToEveryOptimizer) {
  FixedFields sgd = fields(0), average = fields(0), groups = fields(0);
  sgd.set("optimizer.name", std::string("sgd"));
  average.set("training.ema_decay", 0.9);
  groups.set("optimizer.freeze", StringList{"fc1.weight"});
  groups.set("training.kernels", std::string("aten"));
  for (const auto& one : {sgd, average, groups})
    for (int64_t stage : {1, 2}) expect_the_update_of_one(one, {3, 2}, stage, 0);
}

// A weight without a gradient on some ranks, or on all: nothing is to be set for it.
TEST(Zero, LeavesAloneWhatNoRankUses) {
  const toy::Shape shape{.widths = {5, 7, 3}, .unused = true};
  const auto never = [](const Outcome& outcome) {
    for (const auto& weight : outcome.weights)
      if (weight.name == "never") return weight.tensor;
    return at::Tensor();
  };
  for (int64_t stage : {0, 1, 2}) {
    expect_the_update_of_one(fields(0), {4, 2, shape}, stage, 0);
    const auto all = train({4, 2, shape}, fields(stage));
    EXPECT_TRUE(at::equal(never(all[0]), at::ones({2, 3}))) << stage;  // nor does it decay
  }
}

// Samples that all weigh nothing: no gradient, and no statistics of theirs.
TEST(Zero, TakesNoStepWhereNothingCounts) {
  for (int64_t stage : {0, 2}) {
    auto worlds = dist::thread_worlds(2);
    std::vector<std::thread> threads;
    for (auto& world : worlds)
      threads.emplace_back([&] {
        FixedFields all = fields(stage);
        all.set("loss.class_weights", FloatList{0, 1, 1});
        auto model = toy::mlp({.widths = {5, 7, 3}, .batch_norm = true});
        StepContext context;
        context.world = world.get();
        Step step(model, all, context);
        const NamedTensors before = toy::copy(toy::everything(*model));
        Batch batch = toy::classes(4);
        batch.targets.zero_();
        const StepReport report = step.take({batch, batch});
        EXPECT_EQ(report.loss, 0);
        EXPECT_TRUE(toy::same_bits(toy::everything(*model), before)) << stage;
      });
    for (auto& thread : threads) thread.join();
  }
}

TEST(Zero, RoundsTheModelsWeightsFromMastersOfAllRanks) {
  FixedFields all = fields(2);
  all.set("training.precision", std::string("bf16-master"));
  const auto shared = train({2, 2}, all);
  all.set("parallelism.zero_stage", int64_t{0});
  const auto whole = train({2, 2}, all);
  // gradients are bfloat16 here and added up in another order
  EXPECT_LT(toy::largest_difference(shared[0].weights, whole[0].weights), 2e-3);
  EXPECT_NEAR(shared[0].losses.back(), whole[0].losses.back(), 2e-3);
  EXPECT_EQ(shared[0].losses, shared[1].losses);
  EXPECT_TRUE(toy::same_bits(shared[0].weights, shared[1].weights));
}

TEST(Zero, SharesBatchStatisticsOfTheLead) {
  const auto all = train({2, 1, {.widths = {5, 7, 3}, .batch_norm = true}}, fields(1));
  EXPECT_TRUE(toy::same_bits(all[0].weights, all[1].weights));
}

TEST(Zero, HoldsItsRowsOnly) {
  const auto all = train({4}, fields(1));
  // 7 rows among 4: 2, 2, 2, 1; 3 rows: 1, 1, 1, none
  EXPECT_EQ(all[3].rows.at("optimizer.exp_avg.fc1.weight").first, 6);
  EXPECT_EQ(all[3].rows.at("optimizer.exp_avg.fc1.weight").count, 1);
  for (const auto& t : all[3].state) EXPECT_EQ(t.name.find("fc2"), std::string::npos) << t.name;
}

TEST(Zero, RefusesGroupsThatDoNotFit) {
  auto worlds = dist::thread_worlds(4);
  StepContext context;
  context.world = worlds[0].get();
  try {
    Step step(toy::mlp(), fields(1, 3), context);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kRecipe);
    EXPECT_EQ(e.where(), "parallelism.data_parallel_shard_degree");
  }
}

TEST(Zero, NamesTheRankThatHasTheBadSample) {
  auto worlds = dist::thread_worlds(2);
  std::vector<std::thread> threads;
  std::vector<std::string> said(2);
  for (size_t rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      StepContext context;
      context.world = worlds[rank].get();
      auto model = toy::mlp();
      Step step(model, fields(2), context);
      const NamedTensors before = toy::copy(model->parameters());
      Batch batch = toy::classes(4);
      if (rank == 1) batch.inputs[2].fill_(NAN);
      try {
        step.take({batch});
      } catch (const Error& e) {
        said[rank] = e.what();
      }
      EXPECT_TRUE(toy::same_bits(model->parameters(), before));
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(said[0], said[1]);
  EXPECT_NE(said[0].find("on rank 1, the input"), std::string::npos) << said[0];
}

// Counts what tensors hold, in place of LibTorch's allocator while it lives; one at a time.
class Counting : public c10::Allocator {
 public:
  Counting() {
    base_ = c10::GetCPUAllocator();
    counting_ = this;
    c10::SetCPUAllocator(this, 1);
  }
  ~Counting() override {
    c10::SetCPUAllocator(base_, 1);
    counting_ = nullptr;
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = base_->allocate(bytes).release_context();
    const std::lock_guard lock(mutex_);
    sizes_[memory] = bytes;
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    return {memory, memory, &release, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  size_t peak() const { return peak_; }

 private:
  static void release(void* memory) {
    if (counting_) {
      const std::lock_guard lock(counting_->mutex_);
      if (const auto size = counting_->sizes_.extract(memory)) counting_->live_ -= size.mapped();
    }
    base_->raw_deleter()(memory);
  }
  static inline c10::Allocator* base_ = nullptr;
  static inline Counting* counting_ = nullptr;
  std::mutex mutex_;
  std::map<void*, size_t> sizes_;
  size_t live_ = 0, peak_ = 0;
};

TEST(Zero, HoldsTheBytesThatWerePredicted) {
  const toy::Shape shape{.widths = std::vector<int64_t>(40, 300)};
  for (const char* precision : {"fp32", "bf16-master"})
    for (int64_t stage : {0, 1, 2})
      for (int64_t micro : {1, 2}) {
        FixedFields all = fields(stage);
        all.set("training.precision", std::string(precision))
            .set("parallelism.bucket_mb", int64_t{1});
        SCOPED_TRACE(::testing::Message() << precision << ", stage " << stage << ", " << micro);
        Counting counting;
        {
          toy::Alone world(4);
          StepContext context;
          context.world = &world;
          auto model = toy::mlp(shape);
          Step step(model, all, context);
          const StepBytes bytes = step_bytes(all, model->parameters(), 4, micro);
          for (int i = 0; i < 2; ++i)
            step.take(std::vector<Batch>(static_cast<size_t>(micro), toy::classes(2, 300, 300)));
          const double predicted = bytes.weights + bytes.state + bytes.gradients;
          EXPECT_NEAR(static_cast<double>(counting.peak()) / predicted, 1, 0.1) << predicted;
        }
      }
}

}  // namespace
}  // namespace lehr::step
