// A world of many ranks, threads of a few processes that speak over the job's store and Gloo as
// hosts do: start, steps of a tiny model whose optimizer's state is shared by four, a checkpoint
// that they write together, and going on from it. The soak has 1,024 of them.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <thread>

#include "engine/base/error.h"
#include "engine/checkpoint/saver.h"
#include "engine/dist/world.h"
#include "engine/step/step.h"
#include "tests/base/scratch.h"
#include "tests/step/toy.h"

namespace lehr::step {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

constexpr int64_t kSharers = 4;  // so that a world of 8 has as many parts as a larger one

FixedFields fields() {
  FixedFields fields;
  fields.set("parallelism.zero_stage", int64_t{1});
  fields.set("parallelism.data_parallel_shard_degree", kSharers);
  return fields;
}

// The steps of one rank.
class Rank {
 public:
  explicit Rank(dist::World& world) : world_(world), model_(toy::mlp()), step_(made()) {}
  void take(int64_t index) {
    const std::vector<Batch> now = batch(index), next = batch(index + 1);
    step_->take(now, [&](double) { return Beside{{}, &next}; });
  }
  std::string save(const std::string& folder, int64_t index) const {
    checkpoint::Content content;
    content.step = index, content.facts = step_->scalars();
    content.part.index = world_.rank(), content.part.count = step_->sharers();
    content.part.folder =
        world_.broadcast_text(world_.is_lead() ? checkpoint::begin_parts(folder, index) : "");
    content.rows = step_->rows();
    if (content.part.index < content.part.count) {
      checkpoint::Saver saver(folder, {});
      saver.save_now(content, world_.is_lead() ? step_->weights() : NamedTensors{}, {},
                     step_->state());
    }
    world_.barrier("saved");
    return folder + "/step-0000000" + std::to_string(index);
  }
  void restore(const std::string& path) {
    const checkpoint::Loaded loaded = checkpoint::load(path, step_->rows());
    checkpoint::restore(*loaded.shards.at("weights"), step_->weights());
    checkpoint::restore(loaded, "state", step_->state(), step_->rows());
    step_->restore_scalars(loaded.facts);
  }
  NamedTensors weights() const { return toy::copy(step_->weights()); }

 private:
  std::unique_ptr<Step> made() {
    StepContext context;
    context.world = &world_;
    return std::make_unique<Step>(model_, fields(), context);
  }
  std::vector<Batch> batch(int64_t index) const {
    return {toy::classes(2, 5, 3, static_cast<uint64_t>(1000 * index + world_.rank()))};
  }
  dist::World& world_;
  std::shared_ptr<models::Model> model_;
  std::unique_ptr<Step> step_;
};

struct Seen {
  double store_calls = 0;  // the most of a rank until its first step was done, but for the lead,
                           // which watches who has come
  double start_s = 0, steps_s = 0, save_s = 0, resume_s = 0;  // of the first of these ranks
};

// Ranks [first, last) of `size`.
Seen run(int first, int last, int size, uint16_t port, const std::string& folder) {
  Seen seen;
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::vector<std::string> errors;
  const auto work = [&](int number) {
    const auto begin = Clock::now();
    dist::Place place;
    place.rank = number, place.size = size;  // of hosts of eight
    place.local_size = 8, place.local_rank = number % 8;
    place.address = "127.0.0.1", place.port = port;
    const auto world =
        dist::open_world(place, {.timeout_s = 240, .heartbeat_s = 120, .ends_stuck_calls = false});
    world->require_same("recipe", "one");
    Rank rank(*world);
    rank.take(0);
    const auto calls = static_cast<double>(world->store_calls());
    const double started = seconds_since(begin);
    rank.take(1), rank.take(2);
    const double stepped = seconds_since(begin);
    const std::string path = rank.save(folder, 3);
    const double saved = seconds_since(begin);
    Rank resumed(*world);
    resumed.restore(path);
    rank.take(3), resumed.take(3);
    if (!toy::same_bits(rank.weights(), resumed.weights()))
      throw std::runtime_error("other bits after the resume");
    world->barrier("the end");
    const std::lock_guard lock(mutex);
    if (number > 0) seen.store_calls = std::max(seen.store_calls, calls);
    if (number == first)
      seen.start_s = started, seen.steps_s = stepped - started, seen.save_s = saved - stepped,
      seen.resume_s = seconds_since(begin) - saved;
  };
  for (int rank = first; rank < last; ++rank)
    threads.emplace_back([&, rank] {
      try {
        work(rank);
      } catch (const std::exception& e) {
        const std::lock_guard lock(mutex);
        errors.push_back(std::to_string(rank) + ": " + e.what());
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(errors.empty()) << errors.size() << " ranks failed: " << errors[0];
  return seen;
}

constexpr int kRanksOfProcess = 128;  // some 50 descriptors each
constexpr const char* kPart = "LEHR_TEST_MANY_RANKS";

// All of them, by copies of this program where they are many.
Seen run(int size, uint16_t port) {
  const Scratch scratch;
  const auto program = [&](int first) {
    const int last = std::min(first + kRanksOfProcess, size);
    const std::string part = fmt::format("{} {} {} {} {}", first, last, size, port, scratch.path());
    const pid_t pid = fork();
    if (pid != 0) return pid;
    setenv(kPart, part.c_str(), 1);
    execl("/proc/self/exe", "test_step", "--gtest_filter=ManyRanks.APartOfThem", "--gtest_brief=1",
          nullptr);
    _exit(127);
  };
  std::vector<pid_t> pids;
  for (int first = kRanksOfProcess; first < size; first += kRanksOfProcess)
    pids.push_back(program(first));
  Seen all = run(0, std::min(size, kRanksOfProcess), size, port, scratch.path());
  for (size_t i = 0; i < pids.size(); ++i) {
    int status = 0;
    waitpid(pids[i], &status, 0);
    EXPECT_EQ(status, 0);
    const std::string file = scratch.path() + fmt::format("/calls-{}", (i + 1) * kRanksOfProcess);
    all.store_calls = std::max(all.store_calls, std::stod(read_file(file)));
  }
  return all;
}

TEST(ManyRanks, APartOfThem) {
  const char* part = std::getenv(kPart);
  if (!part) return;  // nobody asks: the next test runs all
  std::istringstream words(part);
  int first = 0, last = 0, size = 0, port = 0;
  std::string folder;
  words >> first >> last >> size >> port >> folder;
  const Seen seen = run(first, last, size, static_cast<uint16_t>(port), folder);
  write_file_durably(folder + fmt::format("/calls-{}", first), std::to_string(seen.store_calls));
}

TEST(ManyRanks, AskTheStoreAsOftenAsFewAndGoOnExactly) {
  const char* asked = std::getenv("LEHR_SOAK_WORLD");
  const int size = asked ? std::atoi(asked) : 32;
  const auto port = static_cast<uint16_t>(20000 + getpid() * 7 % 9000);
  const Seen few = run(16, port);  // the fewest that are on several hosts
  const auto begin = Clock::now();
  const Seen many = run(size, static_cast<uint16_t>(port + 1));
  const double seconds = seconds_since(begin);
  std::printf(
      "%d ranks: start with first step %.1f s, two steps %.1f s, save %.1f s, resume with a "
      "step %.1f s, in all %.1f s; calls to the store until the first step: %.0f of a rank, "
      "%.0f among 16\n",
      size, many.start_s, many.steps_s, many.save_s, many.resume_s, seconds, many.store_calls,
      few.store_calls);
  EXPECT_GT(few.store_calls, 0);
  EXPECT_LE(many.store_calls, 1.5 * few.store_calls);
  EXPECT_LE(seconds, 60);
}

}  // namespace
}  // namespace lehr::step
