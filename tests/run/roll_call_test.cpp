// `lehr doctor` of several ranks: what is wrong with one of them is named, and only then.
#include "engine/run/roll_call.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

using Json = nlohmann::ordered_json;

struct Report {
  int code = -1;
  std::string out;
  Json world;
  // of the first problem with this in it that concerns the rank
  std::string problem_of(int rank, const std::string& what) const {
    for (const Json& problem : world["problems"]) {
      const std::vector<int> ranks = problem["ranks"];
      const std::string said = problem["what"];
      if (std::find(ranks.begin(), ranks.end(), rank) != ranks.end() &&
          said.find(what) != std::string::npos)
        return said;
    }
    return "";
  }
};

// The one report in the output of all ranks; a second one would be no JSON.
Report report_of(const Outcome& outcome) {
  Report report{outcome.code, outcome.out, {}};
  const size_t begin = outcome.out.find('{'), end = outcome.out.rfind('}');
  if (begin == std::string::npos || end == std::string::npos) {
    ADD_FAILURE() << outcome.out;
    return report;
  }
  report.world = Json::parse(outcome.out.substr(begin, end + 1 - begin)).at("world");
  return report;
}

// Three ranks by hand, these with these words before the program, the others not at all.
Report by_hand(const std::vector<std::pair<int, std::string>>& ranks, const std::string& words) {
  std::string command;
  const std::string port = std::to_string(free_port());
  for (const auto& [rank, before] : ranks)
    command += "(WORLD_SIZE=3 LOCAL_WORLD_SIZE=3 MASTER_ADDR=127.0.0.1 MASTER_PORT=" + port +
               " RANK=" + std::to_string(rank) + " LOCAL_RANK=" + std::to_string(rank) + " " +
               before + " " LEHR_BINARY_DIR "/lehr doctor --json " + words +
               (rank == 0 ? "" : " 2>/dev/null") + ") & ";
  return report_of(shell(command + "wait %1", "/"));
}

constexpr const char* kSlow = ") is slow: ";

// A rank is slow against the others at that moment, and on a busy machine one may be: that is then
// what is said, and nothing else. In one of a few calls none is.
TEST(RollCall, OfSoundRanksFindsNothing) {
  Report report;
  for (int call = 0; call < 8; ++call) {
    report = report_of(lehr({"launch", "-n", "3", "doctor", "--json"}, "/"));
    EXPECT_EQ(report.world["ranks"].size(), 3U);
    for (const Json& rank : report.world["ranks"])
      for (const char* figure : {"small_sum_ms", "large_sum_ms", "product_ms", "line_ms"})
        EXPECT_GT(rank[figure], 0) << figure;
    if (report.code == 0) break;
    for (const Json& problem : report.world["problems"])
      EXPECT_NE(problem["what"].get<std::string>().find(kSlow), std::string::npos) << report.out;
  }
  EXPECT_EQ(report.code, 0) << report.out;
  EXPECT_EQ(report.world["problems"], Json::array());
}

TEST(RollCall, NamesARankThatNeverComes) {
  const Report report = by_hand({{0, ""}, {2, ""}}, "--timeout 3");
  EXPECT_EQ(report.code, 6) << report.out;
  EXPECT_NE(report.problem_of(1, "did not come"), "") << report.out;
}

TEST(RollCall, NamesARankOfAnotherBuild) {
  const std::string preload = "LD_PRELOAD=" LEHR_BINARY_DIR "/tests/libodd_build.so";
  const Report report = by_hand({{0, ""}, {1, preload}, {2, ""}}, "");
  EXPECT_EQ(report.code, 6) << report.out;
  const std::string said = "runs another build than ranks 0, 2: a build of last year and lehr";
  EXPECT_NE(report.problem_of(1, said), "") << report.out;
}

// Whatever a rank says beside it on stderr, stdout holds the report alone.
TEST(RollCall, NamesASlowRank) {
  Scratch scratch;
  const Outcome outcome =
      shell("LD_PRELOAD=" LEHR_BINARY_DIR "/tests/libslow_product.so " LEHR_BINARY_DIR
            "/lehr launch -n 3 doctor --json 2>errors",
            scratch.path);
  EXPECT_NE(scratch.read("errors").find("[rank 2] a product on stderr"), std::string::npos);
  ASSERT_TRUE(Json::accept(outcome.out)) << outcome.out;
  const Report report = report_of(outcome);
  EXPECT_EQ(report.code, 6) << report.out;
  EXPECT_NE(report.problem_of(2, kSlow), "") << report.out;
}

TEST(RollCall, NamesARankThatStandsStill) {
  Scratch scratch;
  const pid_t pid = start_lehr({"launch", "-n", "3", "doctor", "--json", "--timeout", "2"}, "/",
                               scratch.file("log"));
  std::vector<pid_t> ranks;
  const bool started = wait_for([&] {
    std::istringstream lines(shell("pgrep -P " + std::to_string(pid) + " || true", "/").out);
    ranks.clear();
    for (pid_t rank; lines >> rank;) ranks.push_back(rank);
    return ranks.size() == 3;
  });
  ASSERT_TRUE(started);
  kill(ranks[1], SIGSTOP);
  const Report report = report_of({wait_for(pid), scratch.read("log")});
  EXPECT_EQ(report.code, 6) << report.out;
  EXPECT_NE(report.problem_of(1, "did not come"), "") << report.out;
}

// One bit too many in what the last rank receives.
class Damaging : public dist::World {
 public:
  explicit Damaging(std::unique_ptr<dist::World> sound) : sound_(std::move(sound)) {}
  int rank() const override { return sound_->rank(); }
  int size() const override { return sound_->size(); }
  void barrier(const std::string& what) override { sound_->barrier(what); }
  std::unique_ptr<dist::Pending> begin_sum(at::Tensor tensor) override {
    sound_->sum(tensor);
    if (rank() == size() - 1) tensor[tensor.numel() - 1].add_(1);
    return dist::done();
  }
  std::unique_ptr<dist::Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override {
    return sound_->begin_reduce_scatter(all, mine);
  }
  std::unique_ptr<dist::Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override {
    return sound_->begin_all_gather(mine, all);
  }
  std::unique_ptr<World> split(int color) override { return sound_->split(color); }
  void sum_in_tree(at::Tensor tensor) override { sound_->sum_in_tree(tensor); }
  void broadcast(at::Tensor tensor, int root) override { sound_->broadcast(tensor, root); }
  void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) override {
    sound_->exchange(mine, theirs, partner);
  }
  std::vector<at::Tensor> gather(const at::Tensor& tensor) override {
    return sound_->gather(tensor);
  }

 private:
  std::unique_ptr<dist::World> sound_;
};

TEST(RollCall, NamesARankThatEndsSumsWithWrongNumbers) {
  std::vector<std::thread> threads;
  Json lead;
  for (auto& world : dist::thread_worlds(2))
    threads.emplace_back([&lead, world = std::make_shared<Damaging>(std::move(world))] {
      dist::Place place;
      place.rank = place.local_rank = world->rank(), place.size = place.local_size = 2;
      const Json report = run::roll_call(*world, place);
      if (world->is_lead()) lead = report;
    });
  for (auto& thread : threads) thread.join();
  const Report report{0, lead.dump(), lead};
  EXPECT_NE(report.problem_of(1, "wrong numbers"), "") << report.out;
  EXPECT_EQ(report.problem_of(0, "wrong numbers"), "") << report.out;
}

}  // namespace
}  // namespace lehr::testing
