// Whose rank a process is, from the variables that each launcher really sets.
#include "engine/dist/launcher.h"

#include <gtest/gtest.h>

#include <map>

#include "engine/base/error.h"

namespace lehr::dist {
namespace {

using Variables = std::map<std::string, std::string>;

Place place_in(const Variables& variables) {
  return find_place([&](const char* name) -> const char* {
    auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string refusal(const Variables& variables) {
  try {
    place_in(variables);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    return e.what();
  }
  return "";
}

const Variables kTorchrun{{"RANK", "5"},
                          {"WORLD_SIZE", "8"},
                          {"LOCAL_RANK", "1"},
                          {"LOCAL_WORLD_SIZE", "4"},
                          {"MASTER_ADDR", "node3"},
                          {"MASTER_PORT", "29400"},
                          {"TORCHELASTIC_RUN_ID", "none"},
                          {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                          {"TORCHELASTIC_RESTART_COUNT", "2"}};
const Variables kSlurm{{"SLURM_JOB_ID", "42"},
                       {"SLURM_STEP_ID", "0"},
                       {"SLURM_PROCID", "3"},
                       {"SLURM_NTASKS", "4"},
                       {"SLURM_LOCALID", "1"},
                       {"SLURM_STEP_NUM_NODES", "2"},
                       {"SLURM_STEP_NODELIST", "gpu[07-08]"}};
const Variables kMpi{{"OMPI_COMM_WORLD_RANK", "1"},
                     {"OMPI_COMM_WORLD_SIZE", "2"},
                     {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                     {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                     {"PMIX_NAMESPACE", "prte-12@1"}};

TEST(Launcher, IsNobodyByDefaultNorInABatchScript) {
  EXPECT_EQ(place_in({}).size, 1);
  // what sbatch sets for the script itself, in which no srun runs
  EXPECT_EQ(place_in({{"SLURM_JOB_ID", "1"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}).size,
            1);
}

TEST(Launcher, ReadsTorchruns) {
  const Place p = place_in(kTorchrun);
  EXPECT_EQ(p.launcher, "torchrun");
  EXPECT_EQ(p.rank, 5);
  EXPECT_EQ(p.size, 8);
  EXPECT_EQ(p.local_rank, 1);
  EXPECT_EQ(p.local_size, 4);
  EXPECT_EQ(p.address, "node3");
  EXPECT_EQ(p.port, 29400);
  EXPECT_TRUE(p.agent_keeps_store);
  EXPECT_EQ(p.attempt, "2");
}

TEST(Launcher, ReadsSlurms) {
  const Place p = place_in(kSlurm);
  EXPECT_EQ(p.launcher, "srun");
  EXPECT_EQ(p.rank, 3);
  EXPECT_EQ(p.size, 4);
  EXPECT_EQ(p.address, "gpu07");
  Variables other = kSlurm;
  other["SLURM_PROCID"] = "0";
  EXPECT_EQ(place_in(other).port, p.port);
  EXPECT_GE(p.port, 20000);
}

TEST(Launcher, ReadsMpiruns) {
  const Place p = place_in(kMpi);
  EXPECT_EQ(p.launcher, "mpirun");
  EXPECT_EQ(p.rank, 1);
  EXPECT_EQ(p.address, "127.0.0.1");
  Variables two_nodes = kMpi;
  two_nodes["OMPI_COMM_WORLD_SIZE"] = "4";
  EXPECT_NE(refusal(two_nodes).find("MASTER_ADDR"), std::string::npos);
}

TEST(Launcher, ReadsPyTorchJobs) {
  const Place p = place_in({{"RANK", "1"},
                            {"WORLD_SIZE", "2"},
                            {"MASTER_ADDR", "job-master-0"},
                            {"MASTER_PORT", "23456"}});
  EXPECT_EQ(p.launcher, "PyTorchJob");
  EXPECT_EQ(p.rank, 1);
  EXPECT_EQ(p.local_rank, 0);
  EXPECT_EQ(p.local_size, 1);
}

const Variables kTrainJob{{"PET_NODE_RANK", "2"},
                          {"PET_NNODES", "4"},
                          {"PET_NPROC_PER_NODE", "1"},
                          {"PET_MASTER_ADDR", "lehr-node-0-0.lehr"},
                          {"PET_MASTER_PORT", "29500"}};

TEST(Launcher, ReadsTrainJobs) {
  const Place p = place_in(kTrainJob);
  EXPECT_EQ(p.launcher, "TrainJob");
  EXPECT_EQ(p.rank, 2);
  EXPECT_EQ(p.size, 4);
  EXPECT_EQ(p.local_rank, 0);
  EXPECT_EQ(p.local_size, 1);
  EXPECT_EQ(p.address, "lehr-node-0-0.lehr");
  EXPECT_EQ(p.port, 29500);
  for (const char* name : {"PET_NODE_RANK", "PET_NNODES", "PET_MASTER_ADDR", "PET_MASTER_PORT"}) {
    Variables partial = kTrainJob;
    partial.erase(name);
    EXPECT_NE(refusal(partial).find(name), std::string::npos) << name;
  }
}

// what the operator says where numProcPerNode is left out: one a CPU, or torchrun's "auto"
TEST(Launcher, RefusesATrainJobOfSeveralRanksAPod) {
  for (const char* each : {"4", "auto", "gpu"}) {
    Variables several = kTrainJob;
    several["PET_NPROC_PER_NODE"] = each;
    const std::string said = refusal(several);
    EXPECT_NE(said.find(std::string("PET_NPROC_PER_NODE=") + each), std::string::npos) << said;
    EXPECT_NE(said.find("numProcPerNode: 1"), std::string::npos) << said;
    several.insert(kTorchrun.begin(), kTorchrun.end());  // torchrun in the pod started them
    EXPECT_EQ(place_in(several).launcher, "torchrun");
  }
}

TEST(Launcher, TheInnermostWins) {
  for (const auto& inner : {kTorchrun, kSlurm, kMpi}) {
    Variables pod = kTrainJob;
    pod.insert(inner.begin(), inner.end());
    EXPECT_EQ(place_in(pod).launcher, place_in(inner).launcher);
  }
  Variables both = kSlurm;
  both.insert(kTorchrun.begin(), kTorchrun.end());
  EXPECT_EQ(place_in(both).launcher, "torchrun");
  Variables mpi = kSlurm;
  mpi.insert(kMpi.begin(), kMpi.end());
  EXPECT_EQ(place_in(mpi).launcher, "mpirun");
}

TEST(Launcher, NamesWhatIsMissingOrMakesNoSense) {
  for (const char* name : {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}) {
    Variables partial = kTorchrun;
    partial.erase(name);
    EXPECT_NE(refusal(partial).find(name), std::string::npos) << name;
  }
  struct Case {
    Variables launcher;
    const char *name, *value, *said;
  };
  const Variables pod{
      {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "m"}, {"MASTER_PORT", "1"}};
  for (const auto& c : std::vector<Case>{
           {kTorchrun, "RANK", "8", "RANK=8 is not below WORLD_SIZE=8"},
           {kTorchrun, "RANK", "-1", "RANK=-1 is below 0"},
           {kTorchrun, "RANK", "1.0", "RANK=1.0 is no whole number"},
           {kTorchrun, "RANK", " 1", "RANK= 1 is no whole number"},
           {kTorchrun, "WORLD_SIZE", "0", "WORLD_SIZE=0 is below 1"},
           {kTorchrun, "WORLD_SIZE", "99999999999", "WORLD_SIZE=99999999999 is no whole number"},
           {kTorchrun, "LOCAL_RANK", "4", "LOCAL_RANK=4 is not below LOCAL_WORLD_SIZE=4"},
           {kTorchrun, "LOCAL_WORLD_SIZE", "many", "LOCAL_WORLD_SIZE=many is no whole number"},
           {kTorchrun, "MASTER_PORT", "0", "MASTER_PORT=0 is not from 1 to 65535"},
           {kTorchrun, "MASTER_PORT", "65536", "MASTER_PORT=65536 is not from 1 to 65535"},
           {kTorchrun, "TORCHELASTIC_RESTART_COUNT", "-1",
            "TORCHELASTIC_RESTART_COUNT=-1 is below 0"},
           {pod, "LOCAL_RANK", "1", "LOCAL_RANK=1 is not below LOCAL_WORLD_SIZE=1"},
           {kSlurm, "SLURM_PROCID", "4", "SLURM_PROCID=4 is not below SLURM_NTASKS=4"},
           {kSlurm, "SLURM_NTASKS", "x", "SLURM_NTASKS=x is no whole number"},
           {kSlurm, "SLURM_STEP_NUM_NODES", "0", "SLURM_STEP_NUM_NODES=0 is below 1"},
           {kSlurm, "SLURM_NODEID", "-2", "SLURM_NODEID=-2 is below 0"},
           {kSlurm, "SLURM_RESTART_COUNT", "no", "SLURM_RESTART_COUNT=no is no whole number"},
           {kSlurm, "MASTER_PORT", "70000", "MASTER_PORT=70000 is not from 1 to 65535"},
           {kMpi, "OMPI_COMM_WORLD_RANK", "2",
            "OMPI_COMM_WORLD_RANK=2 is not below OMPI_COMM_WORLD_SIZE=2"},
           {kMpi, "OMPI_COMM_WORLD_LOCAL_RANK", "2",
            "OMPI_COMM_WORLD_LOCAL_RANK=2 is not below OMPI_COMM_WORLD_LOCAL_SIZE=2"},
           {kMpi, "OMPI_COMM_WORLD_SIZE", "", "lacks OMPI_COMM_WORLD_SIZE"},
           {kTrainJob, "PET_NODE_RANK", "4", "PET_NODE_RANK=4 is not below PET_NNODES=4"},
           {kTrainJob, "PET_MASTER_PORT", "-5", "PET_MASTER_PORT=-5 is not from 1 to 65535"},
           {{}, "PMI_SIZE", "4", "PMI_SIZE=4: MPICH's"},
       }) {
    Variables wrong = c.launcher;
    wrong[c.name] = c.value;
    EXPECT_NE(refusal(wrong).find(c.said), std::string::npos) << c.said << " in\n"
                                                              << refusal(wrong);
  }
  EXPECT_EQ(place_in({{"PMI_SIZE", "1"}, {"PMI_RANK", "0"}}).size, 1);
}

TEST(Launcher, CountsTheTasksOfSlurmsNodes) {
  EXPECT_EQ(tasks_of_node("2(x3),1", 0), 2);
  EXPECT_EQ(tasks_of_node("2(x3),1", 2), 2);
  EXPECT_EQ(tasks_of_node("2(x3),1", 3), 1);
  EXPECT_EQ(tasks_of_node("4,2(x2),3", 1), 2);
  EXPECT_EQ(tasks_of_node("4,2(x2),3", 3), 3);
  EXPECT_EQ(tasks_of_node("4,2", 2), std::nullopt);
  EXPECT_EQ(tasks_of_node("many", 0), std::nullopt);
  EXPECT_EQ(tasks_of_node("", 0), std::nullopt);
  Variables two = kSlurm;
  two["SLURM_NTASKS"] = "5", two["SLURM_NODEID"] = "1", two["SLURM_STEP_NUM_NODES"] = "2";
  two["SLURM_LOCALID"] = "0", two["SLURM_STEP_TASKS_PER_NODE"] = "3,2";
  EXPECT_EQ(place_in(two).local_size, 2);
}

TEST(Launcher, FindsTheFirstOfSlurmsHosts) {
  EXPECT_EQ(first_host("one"), "one");
  EXPECT_EQ(first_host("one,two"), "one");
  EXPECT_EQ(first_host("n[07-09,12],other"), "n07");
  EXPECT_EQ(first_host("a,n[1-2]"), "a");
  EXPECT_EQ(first_host("n[3]"), "n3");
}

}  // namespace
}  // namespace lehr::dist
