// What becomes of a family of ranks when one of them fails, by real signals.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {

using Clock = std::chrono::steady_clock;

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

class RankFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    write_images(scratch, 203);
    write_small_recipe(scratch, 120, 10,
                       "export:\n  enabled: false\nparallelism:\n  reduction: fixed_order\n"
                       "  logical_shards: 4\n  heartbeat: 1s\n");
  }
  pid_t launch(int ranks, const std::string& run) {
    return start_lehr({"launch", "-n", std::to_string(ranks), "small.yaml", "--run", run},
                      scratch.path, scratch.file("log"));
  }
  // the processes of the ranks of a launcher, by rank
  static std::vector<pid_t> ranks_of(pid_t launcher) {
    const Outcome outcome = shell("pgrep -P " + std::to_string(launcher) + " || true", "/");
    std::vector<pid_t> pids;
    std::istringstream lines(outcome.out);
    for (pid_t pid; lines >> pid;) pids.push_back(pid);
    return pids;
  }
  // dead, though nobody has asked for its end yet, is not running
  static bool runs(pid_t pid) {
    const std::string stat =
        shell("cat /proc/" + std::to_string(pid) + "/stat 2>/dev/null", "/").out;
    const auto name = stat.rfind(") ");
    return name != std::string::npos && stat[name + 2] != 'Z' && stat[name + 2] != 'X';
  }
  void wait_for_step(const std::string& run, int step) const {
    char name[64];
    std::snprintf(name, sizeof name, "/checkpoints/step-%08d/MANIFEST.json", step);
    const auto begin = Clock::now();
    while (!file_exists(scratch.file(run + name)) && seconds_since(begin) < 60) usleep(500);
    ASSERT_TRUE(file_exists(scratch.file(run + name))) << scratch.read("log");
  }
  // until the log says so; the seconds that it took
  double wait_until_said(const std::string& what) const {
    const auto begin = Clock::now();
    while (log().find(what) == std::string::npos && seconds_since(begin) < 30) usleep(2000);
    EXPECT_NE(log().find(what), std::string::npos) << log();
    return seconds_since(begin);
  }
  // when the newest row of the run's metrics was written
  double newest_row(const std::string& run) const {
    const std::string rows = scratch.read(run + "/metrics.jsonl");
    const auto last = rows.rfind("\"time\":");
    return last == std::string::npos ? 0 : std::atof(rows.c_str() + last + 7);
  }
  std::string log() const { return file_exists(scratch.file("log")) ? scratch.read("log") : ""; }
  std::string uninterrupted() {
    EXPECT_EQ(lehr({"train", "small.yaml", "--run", "whole"}, scratch.path).code, 0);
    return fingerprint(scratch.file("whole"));
  }
  Scratch scratch;
};

TEST_F(RankFaults, AKilledRankIsNamedAndAllGoOnToTheSameBits) {
  const char* soak = std::getenv("LEHR_SOAK_RANK_KILLS");
  const int kills = soak ? std::atoi(soak) : 5;
  const std::string whole = uninterrupted();
  std::vector<double> recoveries;
  for (int i = 0; i < kills; ++i) {
    const auto victim = static_cast<size_t>(i % 4);
    const std::string run = "killed" + std::to_string(i);
    unlink(scratch.file("log").c_str());
    const pid_t pid = launch(4, run);
    wait_for_step(run, 20);
    const auto ranks = ranks_of(pid);
    ASSERT_EQ(ranks.size(), 4U);
    kill(ranks[victim], SIGKILL);
    const auto killed = Clock::now();
    const double when = unix_time();
    const std::string name = "rank " + std::to_string(victim) + " of 4 was killed by SIGKILL";
    EXPECT_LT(wait_until_said(name), 1);
    while (newest_row(run) < when && seconds_since(killed) < 30) usleep(5000);
    recoveries.push_back(seconds_since(killed));
    ASSERT_EQ(wait_for(pid), 0) << scratch.read("log");
    EXPECT_NE(scratch.read("log").find("restarting all 4 ranks from step"), std::string::npos);
    EXPECT_EQ(fingerprint(scratch.file(run)), whole) << victim;
    ASSERT_EQ(shell("rm -rf " + run, scratch.path).code, 0);
  }
  std::sort(recoveries.begin(), recoveries.end());
  std::printf(
      "%d kills; from a kill to the first new step: median %.2f s, 95th percentile %.2f s\n", kills,
      recoveries[recoveries.size() / 2], recoveries[(recoveries.size() - 1) * 95 / 100]);
  EXPECT_LT(recoveries[(recoveries.size() - 1) * 95 / 100], 5);
}

TEST_F(RankFaults, AStoppedRankIsNamedWithinItsHeartbeatAndWoken) {
  const pid_t pid = launch(2, "stopped");
  wait_for_step("stopped", 10);
  kill(ranks_of(pid).at(1), SIGSTOP);
  EXPECT_LT(wait_until_said("rank 1 has shown no sign of life"), 2);
  wait_until_said("rank 1 goes on");
  EXPECT_EQ(wait_for(pid), 0) << scratch.read("log");
}

TEST_F(RankFaults, ASlowRankIsNamed) {
  const pid_t pid = start_lehr({"launch", "-n", "2", "small.yaml", "--run", "slow", "--set",
                                "training.max_steps=100000", "--set", "validation.interval=0"},
                               scratch.path, scratch.file("log"));
  wait_for_step("slow", 10);
  // the processor is its own for a millisecond in six
  const pid_t slow = ranks_of(pid).at(1);
  const auto begin = Clock::now();
  while (log().find("all waited for them: rank 1 (") == std::string::npos &&
         seconds_since(begin) < 30) {
    kill(slow, SIGSTOP);
    usleep(5000);
    kill(slow, SIGCONT);
    usleep(1000);
  }
  EXPECT_NE(log().find("all waited for them: rank 1 ("), std::string::npos) << log();
  kill(pid, SIGTERM);
  EXPECT_EQ(wait_for(pid), 75) << log();
}

TEST_F(RankFaults, AKilledLauncherLeavesNobodyBehind) {
  const pid_t pid = launch(4, "orphans");
  wait_for_step("orphans", 10);
  const auto ranks = ranks_of(pid);
  ASSERT_EQ(ranks.size(), 4U);
  kill(pid, SIGKILL);
  wait_for(pid);
  const auto begin = Clock::now();
  for (pid_t rank : ranks)
    while (runs(rank) && seconds_since(begin) < 2) usleep(2000);
  for (pid_t rank : ranks) EXPECT_FALSE(runs(rank)) << rank;
}

TEST_F(RankFaults, ACrashLoopEnds) {
  write_small_recipe(scratch, 100000, 90000, "export:\n  enabled: false\n");
  const pid_t pid = start_lehr(
      {"launch", "-n", "2", "small.yaml", "--run", "loop", "--set", "validation.interval=0"},
      scratch.path, scratch.file("log"));
  for (int attempt = 0; attempt < 4; ++attempt) {
    wait_until_said(attempt == 0
                        ? "beginning"
                        : "restarting all 2 ranks from the start (" + std::to_string(attempt));
    const auto begin = Clock::now();
    std::vector<pid_t> ranks;
    while ((ranks = ranks_of(pid)).size() < 2 && seconds_since(begin) < 10) usleep(2000);
    ASSERT_EQ(ranks.size(), 2U) << scratch.read("log");
    usleep(300000);
    kill(ranks[1], SIGSEGV);
  }
  EXPECT_EQ(wait_for(pid), 6) << scratch.read("log");
  EXPECT_NE(scratch.read("log").find("3 restarts without a new checkpoint"), std::string::npos)
      << scratch.read("log");
  EXPECT_NE(scratch.read("log").find("was killed by SIGSEGV"), std::string::npos);
}

TEST_F(RankFaults, ASignalToOneRankStopsAllAtOneCheckpoint) {
  const std::string whole = uninterrupted();
  const pid_t pid = launch(2, "asked");
  wait_for_step("asked", 20);
  kill(ranks_of(pid).at(1), SIGTERM);
  ASSERT_EQ(wait_for(pid), 75) << log();
  EXPECT_NE(log().find("stopped by another rank after step"), std::string::npos) << log();
  ASSERT_EQ(wait_for(launch(2, "asked")), 0) << log();
  EXPECT_EQ(fingerprint(scratch.file("asked")), whole);
}

TEST_F(RankFaults, ARunThatMayNotRestartEndsAtTheFirstFailure) {
  const pid_t pid = start_lehr(
      {"launch", "-n", "2", "small.yaml", "--run", "once", "--set", "job.max_restarts=0"},
      scratch.path, scratch.file("log"));
  wait_for_step("once", 10);
  kill(ranks_of(pid).at(1), SIGKILL);
  EXPECT_EQ(wait_for(pid), 6) << log();
  EXPECT_EQ(log().find("restarting"), std::string::npos) << log();
}

TEST_F(RankFaults, WhatARestartCannotCureIsNotTriedAgain) {
  const Outcome outcome =
      lehr({"launch", "-n", "2", "small.yaml", "--run", "bad", "--set", "optimizer.lr=1e30"},
           scratch.path);
  EXPECT_EQ(outcome.code, 7) << outcome.out;
  EXPECT_EQ(outcome.out.find("restarting"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("of 2 ended with code 7: "), std::string::npos) << outcome.out;
}

}  // namespace lehr::testing
