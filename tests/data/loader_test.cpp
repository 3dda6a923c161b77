#include "engine/data/loader.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "engine/base/pulse.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

// the input of a sample is its number, or, augmented, a draw keyed by (seed, sample, epoch)
class Numbers : public Dataset {
 public:
  explicit Numbers(int64_t size) : size_(size) { info_.features = 1, info_.values = 1; }
  const DataInfo& info() const override { return info_; }
  int64_t size(Split) const override { return size_; }
  Batch allocate(int64_t size) const override {
    ++allocated;
    Batch batch;
    batch.inputs = at::empty({size, 1}, at::kDouble);
    batch.targets = at::empty({size, 1}, at::kDouble);
    batch.samples.resize(size);
    return batch;
  }
  void fill(Split, const int64_t* samples, int64_t begin, int64_t end, bool augment, uint64_t seed,
            int64_t epoch, Batch& batch) const override {
    for (int64_t i = begin; i < end; ++i) {
      if (samples[i] == broken) throw Error(Code::kData, "broken sample", "file");
      if (jitter) std::this_thread::sleep_for(std::chrono::microseconds(samples[i] * 7919 % 200));
      batch.samples[i] = bad.contains(samples[i]) ? kLeftOut : samples[i];
      batch.inputs.data_ptr<double>()[i] =
          augment ? Random(seed, Stream::kAugment, samples[i], epoch).bits()
                  : static_cast<double>(samples[i]);
      batch.targets.data_ptr<double>()[i] = static_cast<double>(samples[i]);
    }
  }
  RawBatch raw(Split, const std::vector<int64_t>&) const override { return {}; }
  Preprocessing preprocessing() const override { return {}; }
  std::string statistics() const override { return "{}"; }

  mutable std::atomic<int64_t> allocated{0};
  int64_t broken = -1;
  std::set<int64_t> bad;
  bool jitter = false;

 private:
  int64_t size_;
  DataInfo info_;
};

LoaderOptions options(int64_t batch, int threads = 2) {
  LoaderOptions o;
  o.global_batch = o.micro_batch = batch;
  o.threads = threads;
  o.seed = 11;
  return o;
}

struct Seen {
  std::vector<int64_t> samples;
  std::vector<double> inputs;
  std::vector<int64_t> positions, epochs;
  bool operator==(const Seen&) const = default;
  void add(const StepBatch& step) {
    for (const auto& batch : step.micro) {
      samples.insert(samples.end(), batch.samples.begin(), batch.samples.end());
      auto inputs_of = batch.inputs.contiguous();
      inputs.insert(inputs.end(), inputs_of.data_ptr<double>(),
                    inputs_of.data_ptr<double>() + inputs_of.numel());
      EXPECT_EQ(batch.epoch, step.epoch);
      EXPECT_EQ(batch.inputs.size(0), batch.size());
    }
    positions.push_back(step.position);
    epochs.push_back(step.epoch);
  }
};

Seen read(std::shared_ptr<Numbers> set, const LoaderOptions& o, int64_t steps, int64_t from = 0) {
  Loader loader(set, o);
  if (from) loader.seek(from);
  Seen seen;
  for (int64_t i = 0; i < steps; ++i) seen.add(loader.next());
  return seen;
}

TEST(Loader, GivesTheSameStreamForAnyNumberOfThreads) {
  auto set = std::make_shared<Numbers>(103);
  set->jitter = true;
  const Seen one = read(set, options(8, 0), 60);
  for (int threads : {1, 2, 5})
    for (int64_t prefetch : {1, 4}) {
      LoaderOptions o = options(8, threads);
      o.prefetch = prefetch;
      EXPECT_EQ(read(set, o, 60), one) << threads << " threads, prefetch " << prefetch;
    }
}

// However steps are cut among ranks, micro-batches and shards, a step has the same samples, in the
// same order: all but the bad ones.
TEST(Loader, LeavesOutBadSamplesWhichKeepTheirPositions) {
  auto set = std::make_shared<Numbers>(103);
  const Seen whole = read(set, options(16), 14);  // two epochs
  for (int64_t sample = 0; sample < 103; sample += 7) set->bad.insert(sample);
  // all of the third step of the first epoch
  set->bad.insert(whole.samples.begin() + 32, whole.samples.begin() + 48);
  for (int world : {1, 2, 4})
    for (auto [micro, shards] : {std::pair{16, 0}, {3, 0}, {4, 4}}) {
      std::vector<std::unique_ptr<Loader>> ranks;
      for (int rank = 0; rank < world; ++rank) {
        LoaderOptions o = options(16);
        o.world = world, o.rank = rank, o.micro_batch = micro, o.shards = shards;
        ranks.push_back(std::make_unique<Loader>(set, o));
      }
      size_t at = 0;
      for (int step = 0; step < 14; ++step) {
        std::vector<int64_t> expected, seen;
        int64_t samples = 0;
        for (auto& loader : ranks) {
          const StepBatch batch = loader->next();
          EXPECT_EQ(batch.position, static_cast<int64_t>(at));
          samples = batch.samples;
          EXPECT_TRUE(!shards || static_cast<int64_t>(batch.micro.size()) == shards / world);
          for (const Batch& part : batch.micro) {
            EXPECT_EQ(part.inputs.defined(), part.size() > 0);
            EXPECT_TRUE(shards || part.size() > 0);
            for (int64_t i = 0; i < part.size(); ++i) {
              seen.push_back(part.samples[i]);
              EXPECT_EQ(part.targets[i].item<double>(), static_cast<double>(seen.back()));
              EXPECT_EQ(part.targets.size(0), part.size());
            }
          }
        }
        for (int64_t i = 0; i < samples; ++i, ++at)
          if (!set->bad.contains(whole.samples[at])) expected.push_back(whole.samples[at]);
        EXPECT_EQ(seen, expected) << "step " << step << " of " << world << " ranks";
        EXPECT_TRUE(step != 2 || seen.empty());
      }
    }
}

TEST(Loader, TakesEverySampleOnceAnEpochInAnotherOrderEachTime) {
  auto set = std::make_shared<Numbers>(103);
  const Seen seen = read(set, options(8), 13 * 3);
  ASSERT_EQ(seen.samples.size(), 309u);
  std::vector<std::vector<int64_t>> epochs;
  for (int e = 0; e < 3; ++e) {
    epochs.emplace_back(seen.samples.begin() + e * 103, seen.samples.begin() + (e + 1) * 103);
    EXPECT_EQ(std::set<int64_t>(epochs.back().begin(), epochs.back().end()).size(), 103u);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

TEST(Loader, ContinuesAnywhereAsIfItHadNotStopped) {
  auto set = std::make_shared<Numbers>(50);
  const Seen whole = read(set, options(8), 40);
  for (size_t stop = 0; stop < 30; stop += 3) {
    const Seen rest = read(set, options(8), 40 - stop, whole.positions[stop]);
    EXPECT_EQ(rest.positions,
              std::vector<int64_t>(whole.positions.begin() + stop, whole.positions.end()));
    EXPECT_EQ(rest.samples,
              std::vector<int64_t>(whole.samples.end() - rest.samples.size(), whole.samples.end()));
    EXPECT_EQ(rest.inputs,
              std::vector<double>(whole.inputs.end() - rest.inputs.size(), whole.inputs.end()));
  }
  // after a change of batch size a position may lie between steps: the samples go on all the same
  for (int64_t from : {1, 13, 49, 50, 99, 101}) {
    const Seen rest = read(set, options(8), 10, from);
    Loader ones(set, options(1));
    std::vector<int64_t> expected;
    for (int64_t i = 0; i < from + static_cast<int64_t>(rest.samples.size()); ++i) {
      const int64_t sample = ones.next().micro[0].samples[0];
      if (i >= from) expected.push_back(sample);
    }
    EXPECT_EQ(rest.samples, expected) << from;
    EXPECT_EQ(rest.positions[0], from);
  }
}

TEST(Loader, SeekDropsWhatWasPrefetched) {
  auto set = std::make_shared<Numbers>(50);
  set->jitter = true;
  Loader loader(set, options(8, 3));
  const Seen expected = read(set, options(8), 5, 16);
  for (int i = 0; i < 10; ++i) {
    loader.next();
    loader.seek(16);
    Seen seen;
    for (int k = 0; k < 5; ++k) seen.add(loader.next());
    EXPECT_EQ(seen, expected);
  }
}

TEST(Loader, GivesRanksSlicesThatMakeUpEveryStep) {
  for (int64_t size : {1, 2, 7, 50, 64, 103}) {
    auto set = std::make_shared<Numbers>(size);
    const Seen whole = read(set, options(8), 30);
    for (int world : {2, 3, 4, 8}) {
      std::vector<std::unique_ptr<Loader>> ranks;
      for (int rank = 0; rank < world; ++rank) {
        LoaderOptions o = options(8);
        o.micro_batch = 3;
        o.rank = rank, o.world = world;
        ranks.push_back(std::make_unique<Loader>(set, o));
      }
      Seen together;
      for (int step = 0; step < 30; ++step) {
        Seen all;
        StepBatch last;
        for (auto& rank : ranks) {
          last = rank->next();
          for (const auto& batch : last.micro) EXPECT_LE(batch.size(), 3);
          all.add(last);
        }
        EXPECT_EQ(static_cast<int64_t>(all.samples.size()), last.samples);
        together.samples.insert(together.samples.end(), all.samples.begin(), all.samples.end());
        together.inputs.insert(together.inputs.end(), all.inputs.begin(), all.inputs.end());
        together.positions.push_back(last.position);
        together.epochs.push_back(last.epoch);
      }
      EXPECT_EQ(together, whole) << size << " samples on " << world << " ranks";
    }
  }
}

TEST(Loader, DropsOrKeepsTheLastShortBatch) {
  auto set = std::make_shared<Numbers>(50);
  Loader keeping(set, options(8));
  EXPECT_EQ(keeping.steps_per_epoch(), 7);
  EXPECT_EQ(keeping.samples_per_epoch(), 50);
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(keeping.next().ends_epoch);
  StepBatch last = keeping.next();
  EXPECT_TRUE(last.ends_epoch);
  EXPECT_EQ(last.samples, 2);
  EXPECT_EQ(keeping.next().position, 50);

  LoaderOptions o = options(8);
  o.drop_last = true;
  Loader dropping(set, o);
  EXPECT_EQ(dropping.steps_per_epoch(), 6);
  EXPECT_EQ(dropping.samples_per_epoch(), 48);
  std::set<int64_t> seen;
  for (int i = 0; i < 6; ++i) {
    last = dropping.next();
    EXPECT_EQ(last.samples, 8);
    seen.insert(last.micro[0].samples.begin(), last.micro[0].samples.end());
  }
  EXPECT_EQ(seen.size(), 48u);
  EXPECT_TRUE(last.ends_epoch);
  last = dropping.next();
  EXPECT_EQ(last.position, 48);
  EXPECT_EQ(last.epoch, 1);

  auto few = std::make_shared<Numbers>(7);
  EXPECT_TRUE(
      holds(error_of([&] { Loader(few, o); }).what(), "7 samples, fewer than one batch of 8"));
}

TEST(Loader, EndsAfterOnePassAndBeginsAgainOnSeek) {
  for (int threads : {0, 2}) {
    auto set = std::make_shared<Numbers>(20);
    LoaderOptions o = options(8, threads);
    o.one_pass = true, o.shuffle = false, o.augment = false;
    const uint64_t moves = pulse().moves;
    Loader loader(set, o);
    for (int pass = 0; pass < 3; ++pass) {
      std::vector<double> inputs;
      for (StepBatch step = loader.next(); step.samples > 0; step = loader.next()) {
        auto& t = step.micro[0].inputs;
        inputs.insert(inputs.end(), t.data_ptr<double>(), t.data_ptr<double>() + t.numel());
      }
      ASSERT_EQ(inputs.size(), 20u);
      for (int i = 0; i < 20; ++i) EXPECT_EQ(inputs[i], i);
      EXPECT_TRUE(loader.next().micro.empty());
      loader.seek(0);
    }
    EXPECT_GE(pulse().moves, moves + 9);  // each batch shows that loading gets on
    Loader empty(std::make_shared<Numbers>(0), o);
    EXPECT_EQ(empty.next().samples, 0);
  }
}

TEST(Loader, ThrowsTheErrorOfALoaderThreadAtItsStep) {
  for (int threads : {0, 1, 3}) {
    auto set = std::make_shared<Numbers>(40);
    set->broken = 26;
    LoaderOptions o = options(8, threads);
    o.shuffle = false;
    Loader loader(set, o);
    for (int i = 0; i < 3; ++i) {
      EXPECT_NO_THROW(loader.peek());
      EXPECT_EQ(loader.next().position, 8 * i);
    }
    EXPECT_EQ(error_of([&] { loader.peek(); }).where(), "file");
    EXPECT_EQ(error_of([&] { loader.next(); }).where(), "file");
    EXPECT_EQ(error_of([&] { loader.next(); }).where(), "file");
    loader.seek(32);
    EXPECT_EQ(loader.next().position, 32);
  }
}

TEST(Loader, UsesMemoryAgainOnlyWhenNobodyHoldsIt) {
  auto set = std::make_shared<Numbers>(64);
  LoaderOptions o = options(8);
  Loader loader(set, o);
  for (int i = 0; i < 200; ++i) loader.next();
  EXPECT_LE(set->allocated, 10);
  // a tensor, a view of it, or just its memory: what is held keeps its values
  std::vector<at::Tensor> held, values;
  for (int i = 0; i < 51; ++i) {
    const at::Tensor inputs = loader.next().micro[0].inputs;
    values.push_back(inputs.clone());
    if (i % 3 == 0) held.push_back(inputs);
    if (i % 3 == 1) held.push_back(inputs.view({-1}).slice(0, 0, 8).view({8, 1}));
    if (i % 3 == 2)
      held.push_back(at::empty({0}, at::kDouble).set_(inputs.storage(), 0, {8, 1}, {1, 1}));
  }
  for (int i = 0; i < 200; ++i) loader.next();
  for (int i = 0; i < 51; ++i) EXPECT_TRUE(at::equal(held[i], values[i])) << i;
}

TEST(Loader, StopsWhileThreadsAreAtWork) {
  auto set = std::make_shared<Numbers>(1000);
  set->jitter = true;
  for (int i = 0; i < 20; ++i) {
    {
      Loader loader(set, options(4, 4));
      if (i % 2) loader.next();
    }
    EXPECT_EQ(set.use_count(), 1);  // no thread has it
  }
}

// a device that counts: pinning in loader threads, copying in the caller's
class CountingDevice : public DeviceRuntime {
 public:
  at::DeviceType type() const override { return at::kCPU; }
  std::vector<DeviceInfo> devices() override { return {}; }
  std::string versions() override { return ""; }
  at::Tensor pin(const at::Tensor& host) override {
    ++pinned;
    return host.clone();
  }
  at::Tensor copy_in(const at::Tensor& host) override {
    if (std::this_thread::get_id() == caller) ++copied;
    return host;
  }
  std::unique_ptr<CopyOut> copy_out(const std::vector<at::Tensor>&,
                                    const std::vector<void*>&) override {
    return nullptr;
  }
  void lock_pages(void*, size_t) override {}
  void unlock_pages(void*) override {}
  void synchronize() override {}
  int64_t peak_bytes() override { return 0; }
  std::unique_ptr<RecordedWork> record(const std::function<void(bool)>&) override { return {}; }

  std::atomic<int> pinned{0};
  int copied = 0;
  std::thread::id caller = std::this_thread::get_id();
};

TEST(Loader, PinsAheadAndCopiesInOnTheCallersStream) {
  auto set = std::make_shared<Numbers>(50);
  CountingDevice device;
  LoaderOptions o = options(8);
  o.device = &device;
  EXPECT_EQ(read(set, o, 20), read(set, options(8), 20));
  EXPECT_GE(device.pinned, 40);
  EXPECT_EQ(device.copied, 40);
}

}  // namespace
}  // namespace lehr::data
