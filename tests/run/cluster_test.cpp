// The launchers of clusters for real: Open MPI's mpirun, and a Slurm of two nodes that the test
// starts on this machine for itself, with the job file that users are given.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <iostream>
#include <thread>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

const std::string kProgram = LEHR_BINARY_DIR "/lehr";
const std::string kFixed =
    " --set parallelism.reduction=fixed_order --set parallelism.logical_shards=4 ";

// "" or which Debian packages are missing
std::string lacks(const std::vector<std::pair<std::string, std::string>>& program_of_package) {
  std::string missing;
  for (const auto& [package, program] : program_of_package)
    if (shell("PATH=$PATH:/usr/sbin; command -v " + program, "/").code != 0)
      missing += " " + package;
  return missing.empty() ? "" : "scripts/setup --cluster installs what is missing:" + missing;
}

class Cluster : public ::testing::Test {
 protected:
  void SetUp() override {
    write_images(scratch, 203);
    write_small_recipe(scratch, 400, 20, "export:\n  enabled: false\n");
  }
  std::string uninterrupted() {
    const Outcome whole = shell(kProgram + " train small.yaml --run one" + kFixed, scratch.path);
    EXPECT_EQ(whole.code, 0) << whole.out;
    return fingerprint(scratch.file("one"));
  }
  int newest_step(const std::string& run) {
    const Outcome steps = shell(
        "ls " + run + "/checkpoints 2>/dev/null | sed -n 's/^step-0*//p' | tail -1", scratch.path);
    return std::atoi(steps.out.c_str());
  }
  std::string log(const std::string& name) {
    return file_exists(scratch.file(name)) ? scratch.read(name) : "";
  }
  Scratch scratch;
};

class Mpirun : public Cluster {
 protected:
  void SetUp() override {
    if (const auto missing = lacks({{"openmpi-bin", "mpirun"}}); !missing.empty())
      GTEST_SKIP() << missing;
    Cluster::SetUp();
  }
  const std::string command = "exec mpirun --allow-run-as-root --oversubscribe ";
};

TEST_F(Mpirun, GivesTheBitsOfOneRank) {
  const Outcome outcome =
      shell(command + "-n 2 " + kProgram +
                " train small.yaml --run mpi --set training.max_steps=30" + kFixed,
            scratch.path);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("on each of 2 ranks (mpirun)"), std::string::npos) << outcome.out;
  ASSERT_EQ(shell(kProgram + " train small.yaml --run short --set training.max_steps=30" + kFixed,
                  scratch.path)
                .code,
            0);
  EXPECT_EQ(fingerprint(scratch.file("mpi")), fingerprint(scratch.file("short")));
}

// mpirun ends all ranks once one has left with 75: none may leave before the lead has saved.
TEST_F(Mpirun, HandsOnTheNoticeAndAllIsSavedHoweverSlowTheDisk) {
  const std::string whole = uninterrupted();
  const std::string words = kProgram + " train small.yaml --run mpi" + kFixed;
  const std::string slow = "-x LD_PRELOAD=" LEHR_BINARY_DIR "/tests/libslow_disk.so ";
  Outcome cut;
  std::thread job([&] {
    cut =
        shell(command + "--report-pid pid -n 1 " + slow + words + " : -n 1 " + words, scratch.path);
  });
  const auto step = [this] { return newest_step("mpi"); };
  EXPECT_TRUE(wait_for([&] { return step() >= 20; }, 60));
  kill(std::atoi(scratch.read("pid").c_str()), SIGUSR1);
  job.join();
  EXPECT_EQ(cut.code, 75) << cut.out;
  const size_t said = cut.out.find("stopped by SIGUSR1 after step ");
  ASSERT_NE(said, std::string::npos) << cut.out;
  EXPECT_EQ(step(), std::atoi(cut.out.c_str() + said + 30));
  EXPECT_LT(step(), 400);
  const Outcome rest = shell(command + "-n 2 " + words, scratch.path);
  EXPECT_EQ(rest.code, 0) << rest.out;
  EXPECT_EQ(fingerprint(scratch.file("mpi")), whole);
}

class Slurm : public Cluster {
 protected:
  void SetUp() override {
    const auto missing = lacks({{"slurmctld", "slurmctld"},
                                {"slurmd", "slurmd"},
                                {"slurm-client", "sbatch"},
                                {"munge", "munged"}});
    if (!missing.empty()) GTEST_SKIP() << missing;
    if (getuid() != 0) GTEST_SKIP() << "Slurm's daemons need root to start jobs";
    Cluster::SetUp();
    start();
  }
  void TearDown() override {
    if (HasFailure() && file_exists(scratch.file("slurmctld.log")))
      std::cerr << scratch.read("slurmctld.log") << log("slurmd-s1.log");
    shell("for p in slurmd-s1 slurmd-s2 slurmctld munged; do kill $(cat $p.pid); done; sleep 0.2",
          scratch.path);
  }
  // two nodes, which are this machine twice; nothing outside the test's folder but ports
  void start() {
    const int port = 21000 + getpid() % 2000 * 5;
    scratch.write("slurm.conf", fmt::format(R"(ClusterName=lehr
SlurmctldHost={0}(127.0.0.1)
SlurmctldPort={2}
AuthType=auth/munge
AuthInfo=socket={1}/munge.sock
SlurmUser=root
StateSaveLocation={1}/state
SlurmdSpoolDir={1}/%n
SlurmctldPidFile={1}/slurmctld.pid
SlurmdPidFile={1}/slurmd-%n.pid
SlurmctldLogFile={1}/slurmctld.log
SlurmdLogFile={1}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=1
NodeName=s1 NodeHostname={0} NodeAddr=127.0.0.1 Port={3} CPUs=1
NodeName=s2 NodeHostname={0} NodeAddr=127.0.0.1 Port={4} CPUs=1
PartitionName=all Nodes=s1,s2 Default=YES State=UP
)",
                                            host(), scratch.path, port, port + 1, port + 2));
    const Outcome outcome = shell(R"(PATH=$PATH:/usr/sbin; mkdir state s1 s2
head -c 1024 /dev/urandom > key; chmod 600 key
munged --force --key-file=$PWD/key --socket=$PWD/munge.sock --pid-file=$PWD/munged.pid \
  --log-file=$PWD/munged.log --seed-file=$PWD/seed >/dev/null 2>&1
slurmctld -f $PWD/slurm.conf; for n in s1 s2; do slurmd -f $PWD/slurm.conf -N $n; done)",
                                  scratch.path);
    ASSERT_EQ(outcome.code, 0) << outcome.out;
    ASSERT_TRUE(wait_for([this] { return slurm("sinfo -h -o %T").out == "idle\n"; }, 20))
        << slurm("sinfo").out;
  }
  static std::string host() {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return std::string(name).substr(0, std::string(name).find('.'));
  }
  Outcome slurm(const std::string& command) {
    return shell("export SLURM_CONF=" + scratch.file("slurm.conf") +
                     " MASTER_ADDR=127.0.0.1 LEHR=" + kProgram + "; " + command,
                 scratch.path);
  }
  std::string state(const std::string& job) {
    return slurm("scontrol show job " + job + " | sed -n 's/ *JobState=\\([A-Z]*\\).*/\\1/p'").out;
  }
  static constexpr const char* kJobFile = LEHR_SOURCE_DIR "/recipes/cluster/slurm.sh";
};

TEST_F(Slurm, LetsTheDoctorSeeAllRanks) {
  const Outcome outcome =
      slurm("srun --mpi=none --nodes 2 --ntasks 2 " + kProgram + " doctor --timeout 20");
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("2 by srun"), std::string::npos) << outcome.out;
}

// A step that is killed, then the notice before a time limit, then another turn.
TEST_F(Slurm, TakesAJobOverKillsAndTurnsToTheBitsOfAWholeRun) {
  const std::string whole = uninterrupted();
  const std::string words = std::string(kJobFile) + " small.yaml" + kFixed;
  EXPECT_EQ(slurm("sbatch --test-only --nodes 2 " + words).code, 0);
  Outcome outcome = slurm("sbatch --parsable --nodes 2 " + words);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const std::string job = outcome.out.substr(0, outcome.out.find('\n'));
  const std::string run = "runs/slurm-" + job, name = "lehr-" + job + ".log";
  const auto reaches = [&](int step) {
    return wait_for([&] { return newest_step(run) >= step; }, 60);
  };
  ASSERT_TRUE(reaches(20)) << log(name);
  slurm("scancel --signal=KILL " + job + ".0");
  ASSERT_TRUE(wait_for([&] { return log(name).find("continuing") != std::string::npos; }, 30))
      << log(name);
  ASSERT_TRUE(reaches(newest_step(run) + 20)) << log(name);
  slurm("scancel --signal=USR1 " + job);
  ASSERT_TRUE(wait_for([&] { return state(job) == "PENDING\n"; }, 30)) << log(name);
  EXPECT_NE(log(name).find("stopped by SIGUSR1"), std::string::npos) << log(name);
  EXPECT_LT(newest_step(run), 400);
  // Slurm would wait two minutes, so that what is left of this turn has ended
  slurm("scontrol update jobid=" + job + " StartTime=now+4");
  ASSERT_TRUE(wait_for([&] { return state(job) == "COMPLETED\n"; }, 60)) << state(job) << log(name);
  EXPECT_EQ(fingerprint(scratch.file(run)), whole);
}

// A limit of Slurm's own instead of a notice by hand. The shortest is a minute, so that this takes
// more than two: scripts/soak asks for it.
TEST_F(Slurm, TakesAJobOverARealTimeLimit) {
  if (!std::getenv("LEHR_SOAK_TIME_LIMIT")) GTEST_SKIP() << "scripts/soak limit runs it";
  const std::string words = std::string(kJobFile) + " small.yaml" + kFixed;
  Outcome outcome = slurm("sbatch --parsable --nodes 2 --time 2 --signal USR1@60 " + words +
                          "--set training.max_steps=1000000 --set validation.interval=0 "
                          "--set checkpoint.interval=100000");
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const std::string job = outcome.out.substr(0, outcome.out.find('\n'));
  const std::string run = "runs/slurm-" + job, name = "lehr-" + job + ".log";
  ASSERT_TRUE(wait_for([&] { return state(job) == "RUNNING\n"; }, 30)) << state(job);
  ASSERT_TRUE(wait_for([&] { return state(job) == "PENDING\n"; }, 180)) << log(name);
  EXPECT_NE(log(name).find("stopped by SIGUSR1"), std::string::npos) << log(name);
  const int stopped = newest_step(run);
  EXPECT_GT(stopped, 0);
  slurm("scontrol update jobid=" + job + " StartTime=now+4");
  EXPECT_TRUE(wait_for(
      [&] {
        return log(name).find("continuing after step " + std::to_string(stopped)) !=
               std::string::npos;
      },
      60))
      << log(name);
  slurm("scancel --signal=TERM " + job);
  slurm("scancel " + job);
}

// Kubeflow's own clients read the job files, and lose nothing of them.
TEST(Kubeflow, TakesTheJobFiles) {
  const std::string python = LEHR_SOURCE_DIR "/.deps/venv/bin/python ";
  if (shell(python + "-c 'import kubeflow.training, kubeflow_trainer_api'", "/").code != 0)
    GTEST_SKIP() << "scripts/setup --cluster installs what is missing: Kubeflow's clients";
  const Outcome outcome = shell(python + R"(-c '
import json, types, yaml
from kubeflow.training.api_client import ApiClient
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
read = lambda name: yaml.safe_load(open(")" LEHR_SOURCE_DIR R"(/recipes/cluster/" + name))
job = read("trainjob.yaml")
print(job["kind"], TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job)
job, client = read("kubeflow.yaml"), ApiClient()
text = types.SimpleNamespace(data=json.dumps(job))
print(job["kind"], client.sanitize_for_serialization(client.deserialize(text, "KubeflowOrgV1PyTorchJob")) == job)
')",
                                "/");
  EXPECT_EQ(outcome.out, "TrainJob True\nPyTorchJob True\n");
}

// by the schemas of the Kubernetes API server
TEST(Kubernetes, TakesTheJobFile) {
  const std::string python = LEHR_SOURCE_DIR "/.deps/venv/bin/python ";
  if (shell(python + "-c 'import kubernetes_validate'", "/").code != 0)
    GTEST_SKIP() << "scripts/setup --cluster installs what is missing: kubernetes-validate";
  const Outcome outcome = shell(python + R"(-c '
import yaml, kubernetes_validate
for document in yaml.safe_load_all(open(")" LEHR_SOURCE_DIR R"(/recipes/cluster/kubernetes.yaml")):
  for version in ("1.31", "1.37"):
    kubernetes_validate.validate(document, version, strict=True)
    print(document["kind"], version)')",
                                "/");
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("Job 1.37"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace lehr::testing
