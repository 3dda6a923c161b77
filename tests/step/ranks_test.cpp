// A step over ranks that are threads: the update of one rank, and the same bits in fixed order.
#include "engine/step/ranks.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/base/error.h"
#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

struct Outcome {
  NamedTensors weights, buffers;
  std::vector<double> losses, norms;
};

// Steps of `counts` samples (a short last one now and then) on `size` ranks of `shards / size`
// micro-batches each; every rank's outcome.
std::vector<Outcome> train(int size, const FixedFields& fields, bool batch_norm, int64_t shards,
                           const std::vector<int64_t>& counts = {16, 16, 13, 16, 3, 16}) {
  auto worlds = dist::thread_worlds(size);
  std::vector<Outcome> outcomes(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      auto model = toy::mlp({.batch_norm = batch_norm});
      StepContext context;
      context.world = worlds[static_cast<size_t>(rank)].get();
      context.specimen = [] { return toy::classes(2, 5, 3, 99); };
      Step step(model, fields, context);
      Outcome& outcome = outcomes[static_cast<size_t>(rank)];
      const auto micro_of = [&](uint64_t i) {
        std::vector<Batch> micro;
        if (i >= counts.size()) return micro;
        const int64_t count = counts[i];
        const Batch whole = toy::classes(count, 5, 3, i);
        const int64_t each = shards / size;
        for (int64_t s = rank * each; s < (rank + 1) * each; ++s) {
          const int64_t from = count * s / shards, to = count * (s + 1) / shards;
          micro.push_back(from == to ? Batch{} : toy::rows(whole, from, to));
        }
        if (fields.get<ParallelismFields>().reduction == "plain")
          std::erase_if(micro, [](const Batch& b) { return !b.inputs.defined(); });
        return micro;
      };
      for (uint64_t i = 0; i < counts.size(); ++i) {
        // now and then the next step is not known yet
        const std::vector<Batch> next = micro_of(i + 1);
        const StepReport report = step.take(micro_of(i), [&](double) {
          return Beside{{}, i % 3 == 1 ? nullptr : &next};
        });
        EXPECT_EQ(report.samples, counts[i]);
        outcome.losses.push_back(report.loss);
        outcome.norms.push_back(report.grad_norm);
      }
      outcome.weights = toy::copy(model->parameters());
      outcome.buffers = toy::copy(model->buffers());
    });
  for (auto& thread : threads) thread.join();
  return outcomes;
}

FixedFields fields(const char* reduction) {
  FixedFields all({{"parallelism.reduction", std::string(reduction)},
                   {"training.max_grad_norm", 0.5},
                   {"optimizer.lr", 0.01}});
  if (std::string(reduction) == "fixed_order") all.set("parallelism.logical_shards", int64_t{4});
  return all;
}

TEST(Ranks, GiveTheUpdateOfOneToRounding) {
  const Outcome alone = train(1, fields("plain"), false, 4)[0];
  for (int size : {2, 4}) {
    const auto all = train(size, fields("plain"), false, 4);
    for (const auto& outcome : all) {
      EXPECT_LT(toy::largest_difference(outcome.weights, alone.weights), 1e-6) << size;
      EXPECT_TRUE(toy::same_bits(outcome.weights, all[0].weights));
      for (size_t i = 0; i < alone.losses.size(); ++i) {
        EXPECT_NEAR(outcome.losses[i], alone.losses[i], 1e-6);
        EXPECT_NEAR(outcome.norms[i], alone.norms[i], 1e-6);
      }
    }
  }
}

TEST(Ranks, InFixedOrderGiveTheBitsOfOne) {
  for (bool batch_norm : {false, true}) {
    const Outcome alone = train(1, fields("fixed_order"), batch_norm, 4)[0];
    for (int size : {2, 4})
      for (const auto& outcome : train(size, fields("fixed_order"), batch_norm, 4)) {
        EXPECT_TRUE(toy::same_bits(outcome.weights, alone.weights)) << size;
        EXPECT_TRUE(toy::same_bits(outcome.buffers, alone.buffers)) << size;
        EXPECT_EQ(outcome.losses, alone.losses);
        EXPECT_EQ(outcome.norms, alone.norms);
      }
  }
}

TEST(Ranks, InFixedOrderKeepTheMeanOfTheShardsBatchStatistics) {
  // four shards of the same samples: their mean is what one of them gives
  const Batch shard = toy::classes(6);
  auto together = toy::mlp({.batch_norm = true}), alone = toy::mlp({.batch_norm = true});
  Step in_shards(together, fields("fixed_order"), {});
  Step plain(alone, fields("plain"), {});
  in_shards.take({shard, shard, shard, shard});
  plain.take({shard});
  EXPECT_LT(toy::largest_difference(together->buffers(), alone->buffers()), 1e-6);
}

TEST(Ranks, ShareBatchStatisticsOfTheLead) {
  const auto all = train(2, fields("plain"), true, 2);
  EXPECT_TRUE(toy::same_bits(all[0].buffers, all[1].buffers));
  EXPECT_TRUE(toy::same_bits(all[0].weights, all[1].weights));
}

// Also where a rank has fewer samples than another, or none, and over several micro-batches.
TEST(Ranks, SynchroniseBatchStatistics) {
  // not AdamW, which makes large steps of the rounding that is the gradient of a bias before a norm
  FixedFields plain = fields("plain");
  plain.set("optimizer.name", std::string("sgd"));
  FixedFields synchronised = plain;
  synchronised.set("parallelism.batch_norm", std::string("synchronised"));
  const Outcome alone = train(1, plain, true, 1)[0];
  for (int size : {2, 3, 4})
    for (int64_t stage : {0, 2}) {
      synchronised.set("parallelism.zero_stage", stage);
      for (const auto& outcome : train(size, synchronised, true, size)) {
        EXPECT_LT(toy::largest_difference(outcome.weights, alone.weights), 2e-6) << size;
        EXPECT_LT(toy::largest_difference(outcome.buffers, alone.buffers), 2e-6) << size;
        for (size_t i = 0; i < alone.losses.size(); ++i) {
          EXPECT_NEAR(outcome.losses[i], alone.losses[i], 2e-6) << i;
          EXPECT_NEAR(outcome.norms[i], alone.norms[i], 2e-6) << i;
        }
      }
      const auto several = train(size, synchronised, true, 3 * size);
      for (const auto& outcome : several)
        EXPECT_TRUE(toy::same_bits(outcome.weights, several[0].weights)) << size;
    }
}

// A resume just before an epoch's short last step: what the others sum is learnt from a specimen.
TEST(Ranks, SynchroniseBatchStatisticsFromAFirstStepWithoutASampleOnARank) {
  FixedFields plain = fields("plain");
  plain.set("optimizer.name", std::string("sgd"));
  FixedFields synchronised = plain;
  synchronised.set("parallelism.batch_norm", std::string("synchronised"));
  const std::vector<int64_t> counts{3, 16, 16};
  const Outcome alone = train(1, plain, true, 1, counts)[0];
  for (int64_t stage : {0, 2}) {
    synchronised.set("parallelism.zero_stage", stage);
    const auto all = train(4, synchronised, true, 4, counts);
    for (const auto& outcome : all) {
      EXPECT_LT(toy::largest_difference(outcome.weights, alone.weights), 2e-6);
      EXPECT_LT(toy::largest_difference(outcome.buffers, alone.buffers), 2e-6);
      EXPECT_TRUE(toy::same_bits(outcome.buffers, all[0].buffers));
    }
  }
}

// Counts what a rank asks of its world.
class Counting : public dist::World {
 public:
  explicit Counting(dist::World& world) : world_(world) {}
  int calls = 0;

  int rank() const override { return world_.rank(); }
  int size() const override { return world_.size(); }
  void barrier(const std::string& what) override { ++calls, world_.barrier(what); }
  std::unique_ptr<dist::Pending> begin_sum(at::Tensor t) override {
    return ++calls, world_.begin_sum(t);
  }
  void sum_in_tree(at::Tensor t) override { ++calls, world_.sum_in_tree(t); }
  std::unique_ptr<dist::Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override {
    return ++calls, world_.begin_reduce_scatter(all, mine);
  }
  std::unique_ptr<dist::Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override {
    return ++calls, world_.begin_all_gather(mine, all);
  }
  void broadcast(at::Tensor t, int root) override { ++calls, world_.broadcast(t, root); }
  void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) override {
    ++calls, world_.exchange(mine, theirs, partner);
  }
  std::vector<at::Tensor> gather(const at::Tensor& t) override { return ++calls, world_.gather(t); }
  std::unique_ptr<World> split(int color) override { return ++calls, world_.split(color); }

 private:
  dist::World& world_;
};

// The gradients' bucket and one small sum; without word of the next step, one more for the counts.
TEST(Ranks, WaitForOneSmallSumAStep) {
  auto worlds = dist::thread_worlds(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      Counting counting(*worlds[static_cast<size_t>(rank)]);
      StepContext context;
      context.world = &counting;
      Step step(toy::mlp(), fields("plain"), context);
      const std::vector<Batch> micro{toy::classes(4)}, other{toy::classes(5)};
      const auto calls = [&](const std::vector<Batch>* next) {
        const int before = counting.calls;
        step.take(micro, [&](double) { return Beside{{1.0}, next}; });
        return counting.calls - before;
      };
      EXPECT_EQ(calls(&micro), 3);  // the first
      EXPECT_EQ(calls(&micro), 2);
      EXPECT_EQ(calls(rank == 0 ? &micro : nullptr), 2);
      EXPECT_EQ(calls(&other), 3);
      EXPECT_THROW(step.take(micro), Error);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Ranks, RefuseShardsThatMakeNoTree) {
  for (auto [shards, size] : {std::pair{3, 1}, {6, 2}, {2, 4}}) {
    auto worlds = dist::thread_worlds(size);
    EXPECT_THROW(Ranks(*worlds[0], {}, {}, {.shards = shards}), Error) << shards;
  }
}

TEST(Ranks, NameTheRankThatHasTheBadSample) {
  auto worlds = dist::thread_worlds(2);
  std::vector<std::thread> threads;
  std::vector<std::string> said(2);
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      auto model = toy::mlp();
      StepContext context;
      context.world = worlds[static_cast<size_t>(rank)].get();
      Step step(model, fields("plain"), context);
      Batch batch = toy::classes(4);
      if (rank == 1) batch.inputs[2].fill_(NAN);
      try {
        step.take({batch});
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), Code::kNonFinite);
        said[static_cast<size_t>(rank)] = e.what();
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(said[0], said[1]);
  EXPECT_NE(said[0].find("on rank 1, the input"), std::string::npos) << said[0];
}

// Whose statistics are kept, and where no rank's are alone: all refuse, or none.
TEST(Ranks, RefuseBatchStatisticsThatAreNotFiniteTogether) {
  struct Case {
    std::string reduction, batch_norm;
    int bad;  // rank
    bool refused;
  };
  for (const Case& c : {Case{"plain", "broadcast", 0, true},
                        {"plain", "broadcast", 1, false},
                        {"plain", "synchronised", 1, true},
                        {"fixed_order", "broadcast", 1, true}}) {
    auto worlds = dist::thread_worlds(2);
    std::vector<std::thread> threads;
    std::vector<std::string> said(2);
    std::vector<NamedTensors> buffers(2);
    for (int rank = 0; rank < 2; ++rank)
      threads.emplace_back([&, rank] {
        auto model = toy::mlp({.batch_norm = true});
        StepContext context;
        context.world = worlds[static_cast<size_t>(rank)].get();
        FixedFields own = fields(c.reduction.c_str());
        own.set("parallelism.batch_norm", c.batch_norm);
        if (c.reduction == "fixed_order") own.set("parallelism.logical_shards", int64_t{2});
        Step step(model, own, context);
        Batch batch = toy::classes(8);
        if (rank == c.bad) batch.inputs[5].fill_(1e25f);
        try {
          step.take({batch});
        } catch (const Error& e) {
          said[static_cast<size_t>(rank)] = e.what();
        }
        buffers[static_cast<size_t>(rank)] = toy::copy(model->buffers());
      });
    for (auto& thread : threads) thread.join();
    const std::string what = c.reduction + " " + c.batch_norm + ": " + said[0];
    EXPECT_EQ(said[0], said[1]) << what;
    EXPECT_EQ(said[0].find("`bn1.running_var`") != std::string::npos, c.refused) << what;
    for (const auto& all : buffers)
      for (const auto& [name, tensor] : all)
        EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << what << " " << name;
  }
}

// Notes when each sum begins.
class Noting : public toy::Alone {
 public:
  Noting() : Alone(2) {}
  std::unique_ptr<dist::Pending> begin_sum(at::Tensor tensor) override {
    sums.push_back(tensor);
    return dist::done();
  }
  std::vector<at::Tensor> sums;
};

Tensors sum(Buckets& buckets, const Tensors& gradients) {
  buckets.send_rest(gradients);
  buckets.wait();
  const auto present = buckets.present();
  Tensors sums = buckets.take();
  for (size_t i = 0; i < sums.size(); ++i)
    if (present[i] == 0) sums[i].reset();
  return sums;
}

NamedTensors weights_of(int count) {
  NamedTensors weights;
  for (int i = 0; i < count; ++i)
    weights.push_back({"w" + std::to_string(i), at::ones({300, 1000}).requires_grad_(true)});
  return weights;
}

TEST(Buckets, AreSentWhileTheBackwardRuns) {
  Noting world;
  const NamedTensors weights = weights_of(4);
  Buckets buckets(world, weights, {.bytes = 2 << 20});
  ASSERT_EQ(buckets.size(), 3U);  // of 1.2, 2.4 and 1.2 MB: the first is sent early
  // a chain, whose backward reaches the last weight first
  at::Tensor x = at::ones({1000});
  std::vector<size_t> begun;
  for (const auto& w : weights) {
    at::Tensor y = at::mv(w.tensor, x);
    y.register_hook([&](const at::Tensor&) { begun.push_back(world.sums.size()); });
    x = at::cat({y, x.slice(0, 300)});
  }
  for (bool last : {false, true}) {
    world.sums.clear(), begun.clear();
    buckets.watch(last);
    x.sum().backward({}, /*retain_graph=*/!last);
    EXPECT_EQ(world.sums.size(), last ? 3U : 0U);
  }
  EXPECT_EQ(begun, (std::vector<size_t>{0, 1, 1, 2}));
  EXPECT_EQ(world.sums.size(), 3U);
  Tensors gradients;
  for (const auto& w : weights) gradients.push_back(w.tensor.grad());
  const at::Tensor twice = gradients[0].clone();
  gradients = sum(buckets, gradients);
  EXPECT_EQ(world.sums.size(), 3U);
  EXPECT_TRUE(at::equal(gradients[0], twice));
  // nothing is held twice
  EXPECT_EQ(gradients[0].data_ptr(), weights[0].tensor.grad().data_ptr());
}

TEST(Buckets, SendInOneOrderWhateverIsMissing) {
  Noting world;
  const NamedTensors weights = weights_of(3);
  Buckets buckets(world, weights, {.bytes = 1 << 20});
  ASSERT_EQ(buckets.size(), 3U);
  buckets.watch(true);
  (weights[0].tensor.sum() + weights[1].tensor.sum()).backward();  // the last, sent first, has none
  EXPECT_EQ(world.sums.size(), 0U);
  Tensors gradients(3);
  gradients = sum(buckets, gradients);
  ASSERT_EQ(world.sums.size(), 3U);
  EXPECT_FALSE(gradients[2].defined());
  EXPECT_TRUE(at::equal(gradients[0], at::ones({300, 1000})));
  // nor does a step remember the one before
  Tensors none(3);
  none = sum(buckets, none);
  for (const auto& gradient : none) EXPECT_FALSE(gradient.defined());
}

TEST(Buckets, AddUpMicroBatchesOfOneBackwardOrMany) {
  for (bool watched : {false, true}) {
    Noting world;
    const NamedTensors weights = weights_of(2);
    Buckets buckets(world, weights, {});
    for (int micro = 0; micro < 3; ++micro) {
      if (watched) buckets.watch(micro == 2);
      (weights[0].tensor.sum() * (micro + 1.0)).backward();
    }
    Tensors gradients{weights[0].tensor.grad(), weights[1].tensor.grad()};
    gradients = sum(buckets, gradients);
    EXPECT_TRUE(at::equal(gradients[0], at::full({300, 1000}, 6.0F)));
    EXPECT_FALSE(gradients[1].defined());
  }
}

TEST(Buckets, RefuseAGradientAfterItWasSent) {
  Noting world;
  const NamedTensors weights = weights_of(1);
  Buckets buckets(world, weights, {});
  buckets.watch(true);
  weights[0].tensor.sum().backward();
  EXPECT_THROW(weights[0].tensor.sum().backward(), Error);
}

TEST(Ranks, WithCompressedGradientsKeepClose) {
  FixedFields compressed = fields("plain");
  compressed.set("parallelism.compression", std::string("bf16"));
  const Outcome exact = train(2, fields("plain"), false, 4)[0];
  const auto all = train(2, compressed, false, 4);
  EXPECT_TRUE(toy::same_bits(all[0].weights, all[1].weights));
  for (size_t i = 0; i < exact.norms.size(); ++i)
    EXPECT_NEAR(all[0].norms[i], exact.norms[i], 0.02 * exact.norms[i]);
  EXPECT_NE(all[0].norms[0], exact.norms[0]);  // it was compressed
}

// ATen's fused updates walk the memory of a weight and of its gradient alike.
TEST(Ranks, GiveGradientsInTheMemoryOrderOfTheirWeights) {
  const at::Tensor weight = at::zeros({4, 3, 2, 2}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor gradient = at::arange(48, at::kFloat).view({4, 3, 2, 2});
  for (int64_t shards : {0, 1}) {
    Ranks ranks(dist::single(), {{"w", weight}}, {}, {.shards = shards});
    Tensors gradients{gradient};
    if (shards > 0) {
      ranks.begin_shards();
      ranks.end_shard(gradients, at::ones({}));
    }
    ranks.finish(&gradients, {at::ones({})}, {}, nullptr, true);
    EXPECT_EQ(gradients[0].strides(), weight.strides());
    EXPECT_TRUE(at::equal(gradients[0], gradient));
  }
}

TEST(Ranks, InFixedOrderNameABadSampleBesideAnEmptyShard) {
  Step step(toy::mlp(), fields("fixed_order"), {});
  Batch batch = toy::classes(1);
  batch.inputs.fill_(NAN);
  try {
    step.take({Batch{}, batch, Batch{}, Batch{}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kNonFinite);
    EXPECT_NE(std::string(e.what()).find("the input"), std::string::npos) << e.what();
  }
}

TEST(Ranks, InFixedOrderNameTheParameterWhoseGradientIsBad) {
  auto model = toy::mlp();
  model->parameters()[0].tensor.register_hook([](const at::Tensor& g) { return g * NAN; });
  Step step(model, fields("fixed_order"), {});
  const Batch shard = toy::classes(2);
  try {
    step.take({shard, shard, shard, shard});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(model->parameters()[0].name), std::string::npos)
        << e.what();
  }
}

TEST(TreeSum, AddsNeighboursThenPairs) {
  TreeSum tree;
  for (float leaf : {1e8F, 1.0F, -1e8F, 3.0F}) tree.add(at::full({1}, leaf));
  EXPECT_EQ(tree.take().item<float>(), (1e8F + 1) + (-1e8F + 3));
}

}  // namespace
}  // namespace lehr::step
