// What becomes of a family of ranks when one of them fails, by real signals.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

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

// A memory control group of 64 MB for one process, where this machine lets a test make one.
class MemoryGroup {
 public:
  MemoryGroup() {
    const bool second = file_exists("/sys/fs/cgroup/cgroup.controllers");
    folder_ = fmt::format("/sys/fs/cgroup/{}lehr-test-{}", second ? "" : "memory/", getpid());
    const Outcome made = shell(fmt::format("mkdir {0} && echo 64M > {0}/{1}", folder_,
                                           second ? "memory.max" : "memory.limit_in_bytes"),
                               "/");
    usable_ = made.code == 0;
  }
  ~MemoryGroup() { shell("sleep 0.1; rmdir " + folder_, "/"); }
  bool usable() const { return usable_; }
  void take(pid_t pid) const {
    EXPECT_EQ(shell(fmt::format("echo {} > {}/cgroup.procs", pid, folder_), "/").code, 0);
  }

 private:
  std::string folder_;
  bool usable_ = false;
};

// bytes of a process that no file is behind; 0 when it is gone
int64_t resident(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; status >> word;)
    if (word == "RssAnon:") {
      int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
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
    started = start_lehr({"launch", "-n", std::to_string(ranks), "small.yaml", "--run", run},
                         scratch.path, scratch.file("log"));
    return started;
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
  int newest_step(const std::string& run) const {
    int newest = -1;
    const std::string folder = scratch.file(run + "/checkpoints");
    if (file_exists(folder))
      for (const auto& name : list_folder(folder))
        if (name.starts_with("step-") && name.find('.') == std::string::npos)
          newest = std::max(newest, std::atoi(name.c_str() + 5));
    return newest;
  }
  void wait_for_step(const std::string& run, int step) const {
    ASSERT_TRUE(wait_for([&] { return newest_step(run) >= step; }, 60, started)) << log();
  }
  // until the log says so; the seconds that it took
  double wait_until_said(const std::string& what) const {
    const auto begin = Clock::now();
    EXPECT_TRUE(wait_for([&] { return log().find(what) != std::string::npos; }, 60, started))
        << log();
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
  pid_t started = 0;  // who is waited for
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
    EXPECT_LT(wait_until_said(name), soak ? 1 : 10);  // the soak has the machine for itself
    EXPECT_TRUE(wait_for([&] { return newest_row(run) >= when; })) << log();
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
  EXPECT_LT(recoveries[(recoveries.size() - 1) * 95 / 100], soak ? 5 : 50);
}

// In every way that a process ends unasked: the report says how, and why where that can be known.
TEST_F(RankFaults, ARankThatDiesByItselfIsNamedWithItsCause) {
  write_small_recipe(scratch, 400, 10,
                     "export:\n  enabled: false\nparallelism:\n  reduction: fixed_order\n"
                     "  logical_shards: 4\n  heartbeat: 1s\njob:\n  max_restarts: 20\n");
  const std::string whole = uninterrupted();
  std::vector<std::pair<std::string, std::string>> deaths{
      {"segfault", "was killed by SIGSEGV"},
      {"abort", "was killed by SIGABRT"},
      {"exit", "ended with code 9"},
      {"exception", "was killed by SIGABRT; its last line:   what():  planted"},
      {"stuck", "was killed by SIGKILL"}};
  const MemoryGroup group;
  if (group.usable())
    deaths.push_back({"memory", "was killed by SIGKILL, as the kernel does when"});
  setenv("LD_PRELOAD", LEHR_BINARY_DIR "/tests/libdying.so", 1);
  const pid_t pid = launch(2, "dying");
  unsetenv("LD_PRELOAD");
  for (const auto& [how, cause] : deaths) {
    wait_for_step("dying", std::max(newest_step("dying"), 0) + 10);
    const pid_t victim = ranks_of(pid).at(1);
    if (how == "memory") group.take(victim);
    const size_t before = log().size();
    scratch.write("die", how);
    rename(scratch.file("die").c_str(), scratch.file("die-" + std::to_string(victim)).c_str());
    const auto said = [&] {
      const size_t at = log().find("error: rank 1 of 2 ", before);
      return at == std::string::npos ? "" : log().substr(at, log().find('\n', at) - at);
    };
    EXPECT_TRUE(wait_for([&] { return !said().empty(); })) << log();
    EXPECT_NE(said().find(cause), std::string::npos) << how << ": " << said();
    EXPECT_TRUE(wait_for([&] { return log().find("restarting", before) != std::string::npos; }));
  }
  ASSERT_EQ(wait_for(pid), 0) << log();
  EXPECT_EQ(fingerprint(scratch.file("dying")), whole);
  EXPECT_NE(log().find("rank 1 does not wake and is killed"), std::string::npos) << log();
  if (!group.usable()) GTEST_SKIP() << "no memory control group can be made here";
}

// The soak gives it an hour with a kill in every minute.
TEST_F(RankFaults, AJobKilledAgainAndAgainKeepsItsBitsAndItsMemory) {
  const char* minutes = std::getenv("LEHR_SOAK_RANK_MINUTES");
  const int kills = minutes ? std::atoi(minutes) : 2;
  const double period = minutes ? 60 : 2;
  write_small_recipe(scratch, 400, 10,
                     "export:\n  enabled: false\nparallelism:\n  reduction: fixed_order\n"
                     "  logical_shards: 4\njob:\n  max_restarts: 100000\n");
  const auto begin = [&](std::vector<std::string> words, const std::string& run, int64_t steps,
                         const std::string& output) {
    words.insert(words.end(), {"small.yaml", "--run", run});
    for (const std::string& field :
         {fmt::format("training.max_steps={}", steps),
          fmt::format("checkpoint.interval={}", minutes ? "5s" : "0.2s"),
          fmt::format("validation.interval={}", std::max<int64_t>(steps / 100, 1)),
          fmt::format("metrics.log_interval={}", std::max<int64_t>(steps / 1000, 1))})
      words.insert(words.end(), {"--set", field});
    return start_lehr(words, scratch.path, scratch.file(output));
  };
  // as many steps as fill the time, by the speed of a first run; beside the one process whose bits
  // are the right ones
  const int64_t few = 2000;
  const auto started = Clock::now();
  const pid_t beside = begin({"train"}, "beside", few, "log-whole");
  ASSERT_EQ(wait_for(begin({"launch", "-n", "4"}, "first", few, "log")), 0) << log();
  const auto steps = static_cast<int64_t>(few / seconds_since(started) * period * (kills + 0.5));
  ASSERT_EQ(wait_for(beside), 0);
  const pid_t alone = begin({"train"}, "whole", steps, "log-whole");
  const pid_t launcher = begin({"launch", "-n", "4"}, "killed", steps, "log");
  wait_for_step("killed", 1);

  std::vector<int64_t> of_launcher, of_alone, of_ranks;  // bytes, the ranks' just before a kill
  int killed = 0;
  auto next = Clock::now();
  while (runs(launcher)) {
    next += std::chrono::milliseconds(static_cast<int64_t>(period * 1e3));
    std::this_thread::sleep_until(next);
    if (const int64_t bytes = resident(alone)) of_alone.push_back(bytes);
    if (const int64_t bytes = resident(launcher)) of_launcher.push_back(bytes);
    const auto ranks = ranks_of(launcher);
    if (ranks.size() != 4) continue;
    int64_t sum = 0;
    for (const pid_t rank : ranks) sum += resident(rank);
    of_ranks.push_back(sum);
    kill(ranks[static_cast<size_t>(killed++ % 4)], SIGKILL);
  }
  ASSERT_EQ(wait_for(launcher), 0) << log();
  ASSERT_EQ(wait_for(alone), 0) << scratch.read("log-whole");
  EXPECT_EQ(fingerprint(scratch.file("killed")), fingerprint(scratch.file("whole")));
  EXPECT_GE(killed, kills / 2);
  const auto flat = [](const char* what, const std::vector<int64_t>& bytes) {
    ASSERT_GE(bytes.size(), 2U) << what;
    const auto [least, most] = std::minmax_element(bytes.begin() + 1, bytes.end());
    std::printf("%s: %.1f MB in the second, %.1f in the last of %zu looks (%.1f-%.1f)\n", what,
                bytes[1] / 1e6, bytes.back() / 1e6, bytes.size(), *least / 1e6, *most / 1e6);
    EXPECT_LT(bytes.back(), 1.05 * bytes[1] + 1e6) << what;
  };
  std::printf("%d kills, %lld steps, %.0f s\n", killed, static_cast<long long>(steps),
              seconds_since(started));
  flat("launcher", of_launcher);
  flat("4 ranks before a kill", of_ranks);
  if (minutes) flat("one process, undisturbed", of_alone);
}

TEST_F(RankFaults, AStoppedRankIsNamedWithinItsHeartbeatAndWoken) {
  const pid_t pid = launch(2, "stopped");
  wait_for_step("stopped", 10);
  kill(ranks_of(pid).at(1), SIGSTOP);
  wait_until_said("rank 1 has shown no sign of life for 1.");
  wait_until_said("rank 1 goes on");
  EXPECT_EQ(wait_for(pid), 0) << scratch.read("log");
}

// Pictures, read anew for each sample, so that a file system that does not answer holds `load`.
class Standstills : public RankFaults {
 protected:
  void SetUp() override {
    const std::string dark(
        "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x08\0\0\0\0\xe1\x64\xe1W\0\0\0\x0cIDATx"
        "\xda\x63`\xa0\x0e\0\0\0H\0\x01\x10\x45\xef\xd2\0\0\0\0IEND\xae\x42`\x82",
        69);
    for (const char* name : {"dark", "other"}) {
      make_folders(scratch.file(fmt::format("pictures/{}", name)));
      for (int i = 0; i < 8; ++i) scratch.write(fmt::format("pictures/{}/{}.png", name, i), dark);
    }
    scratch.write("small.yaml", R"(model: {name: mlp, hidden: [4]}
data: {source: image_folder, train_folder: pictures, image_size: 8, grey: true, threads: 1}
training: {global_batch_size: 4, max_steps: 100000000, threads: 1}
optimizer: {name: sgd, lr: 1e-3}
checkpoint: {interval: 50}
metrics: {log_interval: 10}
validation: {interval: 0}
parallelism: {heartbeat: 1s, timeout: 4s}
export: {enabled: false}
)");
  }
  // Started with these words and variables before the program; once it trains, `rank` is held where
  // it opens a picture.
  pid_t start(const std::string& words, const std::string& run) {
    unlink(scratch.file("log").c_str());
    unlink(scratch.file("held").c_str());
    started = fork();
    if (started == 0) {
      const std::string line = fmt::format(
          "cd {} && LD_PRELOAD={}/tests/libheld.so exec {} >> log 2>&1", scratch.path,
          LEHR_BINARY_DIR, fmt::format(fmt::runtime(words), LEHR_BINARY_DIR "/lehr", run));
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
    return started;
  }
  void hold(int rank) const { scratch.write("hold", fmt::format(".png {}", rank)); }
  void let_go() const { unlink(scratch.file("hold").c_str()); }
};

TEST_F(Standstills, OfOneProcessIsNamedAndEnds) {
  const pid_t pid = start("{} train small.yaml --run {}", "alone");
  wait_for_step("alone", 50);
  hold(0);
  wait_until_said("warning: training has been in `load` of step ");
  let_go();
  wait_until_said("warning: training goes on");
  hold(0);
  EXPECT_EQ(wait_for(pid, 60), 6) << log();
  EXPECT_NE(log().find("error: training has been in `load` of step "), std::string::npos) << log();
  EXPECT_NE(log().find("parallelism.timeout"), std::string::npos) << log();
}

// Its work is done and saved: giving back what it holds may take longer than a heartbeat.
TEST_F(Standstills, OfARankThatLeavesIsNoFailure) {
  scratch.write("hold", "exit 1");
  const pid_t pid =
      start("{} launch -n 2 small.yaml --run {} --set training.max_steps=60", "leaves");
  ASSERT_TRUE(wait_for([&] { return file_exists(scratch.file("leaves/finished.json")); }, 60, pid))
      << log();
  usleep(4'000'000);
  let_go();
  EXPECT_EQ(wait_for(pid, 60), 0) << log();
  EXPECT_EQ(log().find("killed"), std::string::npos) << log();
}

TEST_F(Standstills, OfOneRankIsNamedEndedAndRestarted) {
  for (const int ranks : {1, 2}) {
    const std::string run = fmt::format("of{}", ranks);
    const int victim = ranks - 1;
    const pid_t pid = start(fmt::format("{{}} launch -n {} small.yaml --run {{}}", ranks), run);
    wait_for_step(run, 50);
    hold(victim);
    wait_until_said(fmt::format("warning: rank {} has been in `load` of step ", victim));
    wait_until_said(fmt::format("error: rank {} of {} has been in `load` of step ", victim, ranks));
    let_go();
    wait_until_said("continuing after step ");
    EXPECT_NE(log().find("longer than parallelism.timeout, and was ended"), std::string::npos)
        << log();
    EXPECT_EQ(log().find(fmt::format("rank {} has been in", 1 - victim)), std::string::npos)
        << log();
    kill(pid, SIGTERM);
    EXPECT_EQ(wait_for(pid, 60), 75) << log();
  }
}

// As torchrun, srun and mpirun start them: nobody watches but each itself.
TEST_F(Standstills, OfARankWithoutOurLauncherIsNamedAndEndsAll) {
  const auto one = [&](int rank, int port) {
    return start(
        fmt::format("env RANK={0} LOCAL_RANK={0} WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 "
                    "MASTER_ADDR=127.0.0.1 MASTER_PORT={1} {{}} train small.yaml --run {{}}",
                    rank, port),
        "both");
  };
  const int port = free_port();
  const pid_t lead = one(0, port), other = one(1, port);
  wait_for_step("both", 50);
  hold(1);
  wait_until_said("warning: rank 1 of 2 has been in `load` of step ");
  EXPECT_EQ(wait_for(other, 60), 6) << log();
  EXPECT_EQ(wait_for(lead, 60), 6) << log();
  EXPECT_EQ(log().find("rank 0 of 2 has been in"), std::string::npos) << log();
}

TEST_F(Standstills, BeforeTheFirstStepIsNamedTooThoughLater) {
  hold(0);
  const pid_t pid = start("{} train small.yaml --set parallelism.heartbeat=0.2s --run {}", "start");
  wait_until_said("warning: training has been in `start` for 2 s");
  let_go();
  wait_for_step("start", 50);
  kill(pid, SIGTERM);
  EXPECT_EQ(wait_for(pid, 60), 75) << log();
}

// The others end within seconds, but not while one of them writes what can still be used.
TEST_F(RankFaults, ACheckpointThatIsBeingWrittenIsAwaitedAndOneThatWasCutIsNone) {
  for (const int victim : {1, 0}) {
    const std::string run = fmt::format("save{}", victim);
    for (const char* name : {"log", "held"}) unlink(scratch.file(name).c_str());
    scratch.write("hold", "/model.safetensors 0");
    setenv("LD_PRELOAD", LEHR_BINARY_DIR "/tests/libheld.so", 1);
    const pid_t pid = launch(2, run);
    unsetenv("LD_PRELOAD");
    ASSERT_TRUE(wait_for([&] { return file_exists(scratch.file("held")); }, 60, pid)) << log();
    kill(ranks_of(pid).at(static_cast<size_t>(victim)), SIGKILL);
    if (victim == 1) wait_until_said("rank 0 still writes a checkpoint, which is awaited");
    if (victim == 0) wait_until_said("restarting all 2 ranks from the start");
    unlink(scratch.file("hold").c_str());
    EXPECT_EQ(wait_for(pid, 60), 0) << log();
    EXPECT_EQ(log().find("continuing after step ") != std::string::npos, victim == 1) << log();
  }
}

TEST_F(RankFaults, DebuggingReachesTheRanks) {
  const Outcome outcome = lehr({"--debug", "launch", "-n", "2", "small.yaml", "--set",
                                "data.train_images=none", "--set", "job.max_restarts=0"},
                               scratch.path);
  EXPECT_NE(outcome.out.find(" was killed by SIGABRT"), std::string::npos) << outcome.out;
}

TEST_F(RankFaults, ASlowRankIsNamed) {
  const pid_t pid = started =
      start_lehr({"launch", "-n", "2", "small.yaml", "--run", "slow", "--set",
                  "training.max_steps=100000", "--set", "validation.interval=0"},
                 scratch.path, scratch.file("log"));
  wait_for_step("slow", 10);
  // the processor is its own for a millisecond in six
  const pid_t slow = ranks_of(pid).at(1);
  EXPECT_TRUE(wait_for([&] {
    kill(slow, SIGSTOP);
    usleep(5000);
    kill(slow, SIGCONT);
    return log().find("all waited for them: rank 1 (") != std::string::npos;
  })) << log();
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
  for (pid_t rank : ranks) EXPECT_TRUE(wait_for([&] { return !runs(rank); }, 10)) << rank;
}

TEST_F(RankFaults, ACrashLoopEnds) {
  write_small_recipe(scratch, 100000, 90000, "export:\n  enabled: false\n");
  const pid_t pid = started = start_lehr(
      {"launch", "-n", "2", "small.yaml", "--run", "loop", "--set", "validation.interval=0"},
      scratch.path, scratch.file("log"));
  for (int attempt = 0; attempt < 4; ++attempt) {
    wait_until_said(attempt == 0
                        ? "beginning"
                        : "restarting all 2 ranks from the start (" + std::to_string(attempt));
    std::vector<pid_t> ranks;
    ASSERT_TRUE(wait_for([&] { return (ranks = ranks_of(pid)).size() == 2; })) << log();
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
  // once: beside those of every tenth step there is the one of the stop
  std::vector<std::string> odd;
  for (const auto& name : list_folder(scratch.file("asked/checkpoints")))
    if (!name.ends_with("0")) odd.push_back(name);
  EXPECT_LE(odd.size(), 1U) << log();
  EXPECT_NE(log().find("after step " + std::to_string(newest_step("asked"))), std::string::npos)
      << log();
  ASSERT_EQ(wait_for(launch(2, "asked")), 0) << log();
  EXPECT_EQ(fingerprint(scratch.file("asked")), whole);
}

TEST_F(RankFaults, ARunThatMayNotRestartEndsAtTheFirstFailure) {
  const pid_t pid = started = start_lehr(
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
