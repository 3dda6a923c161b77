// Compiled with -fopenmp (CMakeLists.txt): what the compiler makes of each directive runs here.
#include "engine/base/team.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace lehr {
namespace {

using Clock = std::chrono::steady_clock;

// Loops until `done()` says so, for a minute at most.
template <class Done>
bool within_a_minute(Done done) {
  const auto end = Clock::now() + std::chrono::minutes(1);
  while (!done())
    if (Clock::now() > end) return false;
  return true;
}

TEST(Team, IsFoundBeforeOtherOpenMpLibraries) { EXPECT_TRUE(team_is_ours()); }

TEST(Team, RunsEachPartOnceUnderItsNumber) {
  for (int size : {1, 2, 3, 8, 2, 1, 5}) {
    std::vector<int> runs(8);
    for (int region = 0; region < 200; ++region) {
#pragma omp parallel num_threads(size)
      {
        EXPECT_EQ(omp_get_num_threads(), size);
        EXPECT_EQ(omp_in_parallel(), size > 1);
        ++runs[static_cast<size_t>(omp_get_thread_num())];
      }
    }
    for (int part = 0; part < 8; ++part)
      EXPECT_EQ(runs[static_cast<size_t>(part)], part < size ? 200 : 0);
  }
  EXPECT_EQ(omp_get_num_threads(), 1);
  EXPECT_EQ(omp_get_thread_num(), 0);
}

TEST(Team, OffersTheNumberThatWasSet) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(3);
  int threads = 0, within = 0;
#pragma omp parallel reduction(max : threads, within)
  threads = omp_get_num_threads(), within = omp_get_max_threads();
  EXPECT_EQ(threads, 3);
  EXPECT_EQ(within, 3);
  std::thread([&] { EXPECT_EQ(omp_get_max_threads(), before); }).join();
  omp_set_num_threads(before);
}

TEST(Team, GivesARegionWithinARegionOneThread) {
  std::atomic<int> inner{0};
#pragma omp parallel num_threads(3)
  {
    const int own = omp_get_thread_num();
#pragma omp parallel num_threads(3)
    {
      EXPECT_EQ(omp_get_num_threads(), 1);
      ++inner;
    }
    EXPECT_EQ(omp_get_thread_num(), own);
  }
  EXPECT_EQ(inner, 3);
}

TEST(Team, WaitsAtBarriers) {
  for (int repeat = 0; repeat < 100; ++repeat) {
    std::atomic<int> first{0}, second{0};
#pragma omp parallel num_threads(4)
    {
      ++first;
#pragma omp barrier
      EXPECT_EQ(first, 4);
      ++second;
#pragma omp barrier
      EXPECT_EQ(second, 4);
    }
  }
}

TEST(Team, SharesLoopsSectionsAndSingles) {
  std::vector<int> up(1000), down(1000), ordered;
  int single = 0, sections = 0, critical = 0, named = 0;
#pragma omp parallel num_threads(3)
  {
#pragma omp for schedule(dynamic, 7)
    for (int i = 0; i < 1000; ++i) ++up[static_cast<size_t>(i)];
#pragma omp for schedule(dynamic, 3) nowait
    for (int i = 999; i >= 0; i -= 2) ++down[static_cast<size_t>(i)];
#pragma omp for ordered schedule(dynamic, 2)
    for (int i = 0; i < 101; ++i) {
#pragma omp ordered
      ordered.push_back(i);
    }
#pragma omp sections nowait
    {
#pragma omp section
#pragma omp atomic
      sections += 1;
#pragma omp section
#pragma omp atomic
      sections += 10;
#pragma omp section
#pragma omp atomic
      sections += 100;
    }
#pragma omp single
    ++single;
    for (int i = 0; i < 100; ++i) {
#pragma omp critical
      ++critical;
#pragma omp critical(by_name)
      ++named;
    }
  }
  EXPECT_EQ(up, std::vector<int>(1000, 1));
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(down[i], i % 2);
  std::vector<int> in_order(101);
  std::iota(in_order.begin(), in_order.end(), 0);
  EXPECT_EQ(ordered, in_order);
  EXPECT_EQ(sections, 111);
  EXPECT_EQ(single, 1);
  EXPECT_EQ(critical, 300);
  EXPECT_EQ(named, 300);
}

int64_t work() {
  int64_t sum = 0;
  for (int region = 0; region < 500; ++region) {
#pragma omp parallel num_threads(3) reduction(+ : sum)
    sum += omp_get_thread_num();
  }
  return sum;
}

TEST(Team, ServesSeveralThreadsAtOnceAndAChildAfterFork) {
  std::vector<int64_t> sums(4);
  std::vector<std::thread> threads;
  for (auto& sum : sums) threads.emplace_back([&] { sum = work(); });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(sums, std::vector<int64_t>(4, 1500));
  EXPECT_EQ(work(), 1500);
#ifndef __SANITIZE_THREAD__  // which allows no threads there
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(work() == 1500 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
#endif
}

// All threads on one core: each gets a half of it, which is not enough.
class TeamOnOneCore : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(sched_getaffinity(0, sizeof before_, &before_), 0);
    int core = 0;
    while (!CPU_ISSET(core, &before_)) ++core;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  }
  void TearDown() override { sched_setaffinity(0, sizeof before_, &before_); }

  // Until a thread is away; whether that came.
  static bool leaves() {
    std::atomic<int64_t> parts{0};
    const TeamCounts before = team_counts();
    int64_t regions = 0;
    const bool left = within_a_minute([&] {
      ++regions;
#pragma omp parallel num_threads(2)
      {
        for (int i = 0; i < 20000; ++i) parts.fetch_add(i == 0, std::memory_order_relaxed);
      }
      return team_counts().absences > before.absences;
    });
    EXPECT_EQ(parts, 2 * regions);
    return left;
  }

 private:
  cpu_set_t before_;
};

TEST_F(TeamOnOneCore, LeavesTheWorkToOneThread) {
  std::thread([] {
    ASSERT_TRUE(leaves());
    const int64_t before = team_counts().taken;
    std::atomic<int> parts{0};
#pragma omp parallel num_threads(2)
    ++parts;
    EXPECT_EQ(parts, 2);
    EXPECT_EQ(team_counts().taken, before + 1);
  }).join();
}

// Parts that wait for each other, by a barrier of OpenMP or by their own.
TEST_F(TeamOnOneCore, ComesBackForPartsThatNeedAllThreads) {
  std::thread([] {
    ASSERT_TRUE(leaves());
    for (int region = 0; region < 5; ++region) {
      std::atomic<int> here{0};
#pragma omp parallel num_threads(2)
      {
        ++here;
#pragma omp barrier
        EXPECT_EQ(here, 2);
      }
      here = 0;
#pragma omp parallel num_threads(2)
      {
        ++here;
        EXPECT_TRUE(within_a_minute([&] { return here == 2; }));
      }
    }
  }).join();
}

}  // namespace
}  // namespace lehr
