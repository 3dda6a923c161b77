// Four hosts with addresses of their own: network namespaces on one bridge. What a job does there
// when the network is sound, loses packets, is cut, and heals.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <iostream>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

using Clock = std::chrono::steady_clock;

class Hosts : public ::testing::Test {
 protected:
  static constexpr int kHosts = 4;
  void SetUp() override {
    if (getuid() != 0) GTEST_SKIP() << "network namespaces need root";
    if (shell("PATH=$PATH:/usr/sbin; command -v ip && command -v nft", "/").code != 0)
      GTEST_SKIP() << "scripts/setup --cluster installs what is missing: iproute2 nftables";
    write_images(scratch, 203);
    write_small_recipe(scratch, 60, 10,
                       "export:\n  enabled: false\nparallelism:\n  reduction: fixed_order\n"
                       "  logical_shards: 4\n  timeout: 20s\n");
    std::string script = "set -e; PATH=$PATH:/usr/sbin; ip netns add " + space("switch") +
                         "; ip -n " + space("switch") + " link add bridge type bridge; ip -n " +
                         space("switch") + " link set bridge up; ";
    for (int i = 0; i < kHosts; ++i) {
      const std::string host = space(i), port = fmt::format("p{}", i);
      script += fmt::format(
          "ip netns add {0}; ip -n {0} link set lo up; "
          "ip -n {1} link add {2} type veth peer name eth0 netns {0}; "
          "ip -n {1} link set {2} master bridge up; "
          "ip -n {0} addr add 10.77.0.{3}/24 dev eth0; ip -n {0} link set eth0 up; ",
          host, space("switch"), port, i + 1);
      // as Debian writes it: the own name is loopback
      std::string hosts = "127.0.0.1 localhost\n";
      for (int j = 0; j < kHosts; ++j)
        hosts +=
            i == j ? fmt::format("127.0.1.1 h{}\n", j) : fmt::format("10.77.0.{} h{}\n", j + 1, j);
      scratch.write(fmt::format("hosts{}", i), hosts);
    }
    const Outcome made = shell(script, "/");
    if (made.code != 0) GTEST_SKIP() << "no network namespaces here: " << made.out;
  }
  void TearDown() override {
    std::string script = "PATH=$PATH:/usr/sbin; ip netns del " + space("switch") + "; ";
    for (int i = 0; i < kHosts; ++i) script += "ip netns del " + space(i) + "; ";
    shell(script, "/");
  }
  static std::string space(const std::string& name) {
    return fmt::format("lehr{}-{}", getpid(), name);
  }
  static std::string space(int host) { return space(std::to_string(host)); }

  // Everything that reaches the host is dropped with this probability.
  void lose(int host, int percent) {
    const Outcome outcome = shell(
        fmt::format("PATH=$PATH:/usr/sbin; exec ip netns exec {} nft 'add table netdev faults; "
                    "flush table netdev faults; add chain netdev faults in {{ type filter hook "
                    "ingress device \"eth0\" priority 0; }}; add rule netdev faults in {}'",
                    space(host),
                    percent == 100 ? std::string("drop")
                                   : fmt::format("numgen random mod 100 < {} drop", percent)),
        "/");
    EXPECT_EQ(outcome.code, 0) << outcome.out;
  }
  // For an instant whatever reaches the host over TCP is answered with a reset.
  void reset(int host) {
    const Outcome outcome =
        shell(fmt::format(
                  "PATH=$PATH:/usr/sbin; exec ip netns exec {} sh -c \"nft 'add table inet resets; "
                  "add chain inet resets in {{ type filter hook input priority 0; }}; add rule "
                  "inet resets in meta l4proto tcp reject with tcp reset'; sleep 0.1; "
                  "nft delete table inet resets\"",
                  space(host)),
              "/");
    EXPECT_EQ(outcome.code, 0) << outcome.out;
  }
  void heal(int host) {
    shell(fmt::format("PATH=$PATH:/usr/sbin; ip netns exec {} nft delete table netdev faults",
                      space(host)),
          "/");
  }

  // `lehr WORDS` on every host, one rank each; `meanwhile` beside it. Each rank's code at the end.
  struct Job {
    std::vector<int> codes;
    std::string out;
    double seconds = 0;
  };
  Job run(
      const std::string& words, const std::function<void()>& meanwhile = [] {}) {
    const auto begin = Clock::now();
    std::vector<pid_t> pids;
    for (int i = 0; i < kHosts; ++i) {
      const std::string command = fmt::format(
          "cd {0} && exec ip netns exec {1} unshare --uts --mount sh -c 'hostname h{2}; "
          "mount --bind {0}/hosts{2} /etc/hosts; exec env RANK={2} WORLD_SIZE=4 LOCAL_RANK=0 "
          "LOCAL_WORLD_SIZE=1 MASTER_ADDR=h0 MASTER_PORT=29500 timeout -s KILL 60 " LEHR_BINARY_DIR
          "/lehr {3}' > {0}/out{2} 2>&1",
          scratch.path, space(i), i, words);
      const pid_t pid = fork();
      if (pid == 0) {
        setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", 1);
        execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
        _exit(127);
      }
      pids.push_back(pid);
    }
    meanwhile();
    Job job;
    for (pid_t pid : pids) job.codes.push_back(wait_for(pid));
    job.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    for (int i = 0; i < kHosts; ++i)
      job.out += fmt::format("--- h{}\n", i) + scratch.read(fmt::format("out{}", i));
    return job;
  }
  void wait_for_step(const std::string& run, int step) {
    const std::string file =
        scratch.file(fmt::format("{}/checkpoints/step-{:08}/MANIFEST.json", run, step));
    const auto begin = Clock::now();
    while (!file_exists(file) && Clock::now() - begin < std::chrono::seconds(30)) usleep(1000);
    EXPECT_TRUE(file_exists(file));
  }
  std::string of_one_rank(const std::string& more = "") {
    const Outcome one =
        shell(LEHR_BINARY_DIR "/lehr train small.yaml --run one" + more, scratch.path);
    EXPECT_EQ(one.code, 0) << one.out;
    return fingerprint(scratch.file("one"));
  }
  const std::vector<int> kAllDone{0, 0, 0, 0}, kAllRanks{6, 6, 6, 6};
  Scratch scratch;
};

TEST_F(Hosts, GiveTheBitsOfOneRank) {
  const Job job = run("train small.yaml --run four");
  ASSERT_EQ(job.codes, kAllDone) << job.out;
  EXPECT_EQ(fingerprint(scratch.file("four")), of_one_rank());
}

TEST_F(Hosts, TheDoctorNamesOneBehindASlowLine) {
  const Outcome slowed = shell("PATH=$PATH:/usr/sbin; tc -n " + space("switch") +
                                   " qdisc add dev p2 root tbf rate 200mbit burst 64k latency 99ms",
                               "/");
  if (slowed.code != 0) GTEST_SKIP() << "this kernel has no tbf: " << slowed.out;
  const Job job = run("doctor --timeout 20");
  EXPECT_EQ(job.codes, (std::vector<int>{6, 0, 0, 0})) << job.out;
  EXPECT_NE(job.out.find("on 4 host(s)"), std::string::npos) << job.out;
  EXPECT_NE(job.out.find("problem   rank 2 (h2) is slow to reach"), std::string::npos) << job.out;
}

TEST_F(Hosts, TheDoctorNamesOneThatIsCutOff) {
  lose(3, 100);
  const Job job = run("doctor --timeout 3");
  EXPECT_EQ(job.codes, (std::vector<int>{6, 0, 0, 6})) << job.out;
  EXPECT_NE(job.out.find("problem   rank 3 did not come"), std::string::npos) << job.out;
  EXPECT_NE(job.out.find("rank 3 cannot reach the store at h0"), std::string::npos) << job.out;
}

TEST_F(Hosts, UnderLossesGiveTheSameBitsOrSayWhatFailed) {
  lose(1, 30);
  const std::string few = " --set training.max_steps=2 --set validation.interval=0";
  const Job job = run("train small.yaml --run lossy --set parallelism.timeout=15s" + few);
  EXPECT_LT(job.seconds, 150) << job.out;  // many times the timeout, on a machine that is busy
  std::cout << fmt::format("ended after {:.1f} s with codes {}\n", job.seconds,
                           fmt::join(job.codes, ", "));
  if (job.codes == kAllDone) {
    EXPECT_EQ(fingerprint(scratch.file("lossy")), of_one_rank(few));
  } else {
    for (int code : job.codes) EXPECT_TRUE(code == 0 || code == 6) << job.out;
    EXPECT_NE(job.out.find("rank"), std::string::npos) << job.out;
  }
}

TEST_F(Hosts, GoOnToTheSameBitsWhenACutHeals) {
  const Job job = run("train small.yaml --run healed", [this] {
    wait_for_step("healed", 10);
    lose(2, 100);
    usleep(2000000);
    heal(2);
  });
  ASSERT_EQ(job.codes, kAllDone) << job.out;
  EXPECT_GT(job.seconds, 2);
  EXPECT_EQ(fingerprint(scratch.file("healed")), of_one_rank());
}

TEST_F(Hosts, EndInTimeWhenACutDoesNotHealAndGoOnLater) {
  const std::string words = "train small.yaml --run cut --set parallelism.timeout=4s";
  Clock::time_point cut;
  const Job job = run(words, [&] {
    wait_for_step("cut", 10);
    cut = Clock::now();
    lose(2, 100);
  });
  EXPECT_EQ(job.codes, kAllRanks) << job.out;
  EXPECT_LT(std::chrono::duration<double>(Clock::now() - cut).count(), 12);
  heal(2);
  EXPECT_EQ(run(words).codes, kAllDone);
  EXPECT_EQ(fingerprint(scratch.file("cut")), of_one_rank());
}

// A switch that restarts, a firewall that forgets: connections end though every host is well. Most
// often all end at once; what Gloo does not hear of ends after the timeout.
TEST_F(Hosts, EndInTimeWhenConnectionsAreResetAndGoOnLater) {
  const std::string longer = " --set training.max_steps=400";
  const std::string words = "train small.yaml --run reset --set parallelism.timeout=10s" + longer;
  Clock::time_point then;
  const Job job = run(words, [&] {
    wait_for_step("reset", 10);
    then = Clock::now();
    reset(2);
  });
  EXPECT_EQ(job.codes, kAllRanks) << job.out;
  EXPECT_LT(std::chrono::duration<double>(Clock::now() - then).count(), 20) << job.out;
  EXPECT_NE(job.out.find("rank 2"), std::string::npos) << job.out;
  EXPECT_EQ(run(words).codes, kAllDone);
  EXPECT_EQ(fingerprint(scratch.file("reset")), of_one_rank(longer));
}

}  // namespace
}  // namespace lehr::testing
