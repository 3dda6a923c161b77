// Which rank this process is, from the environment of whatever launched it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace lehr::dist {

struct Place {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // on this node
  std::string launcher;  // "lehr launch", "torchrun", "PyTorchJob", "TrainJob", "mpirun",
                         // "srun"
  std::string address;   // of the node that keeps the store
  uint16_t port = 0;
  bool agent_keeps_store = false;   // torchrun's agent does, so no rank serves it
  std::optional<int> listening_fd;  // `lehr launch` hands rank 0 the store's socket: no port race
  // of the store's keys: what the launcher calls the job, "" if it does not, and which restart
  std::string job, attempt = "0";
};

// The innermost launcher wins (torchrun inside srun is the usual case). One rank when there is
// none. Throws Error{kUsage} when some of a launcher's variables are missing or make no sense,
// naming them with their values.
//   Lehr, torchrun, PyTorchJob: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK,
//     LOCAL_WORLD_SIZE (pytorch.org/docs/stable/elastic/run.html)
//   TrainJob: PET_{NODE_RANK,NNODES,NPROC_PER_NODE,MASTER_ADDR,MASTER_PORT}, of a pod, hence
//   outermost Open MPI: OMPI_COMM_WORLD_{RANK,SIZE,LOCAL_RANK,LOCAL_SIZE}, MASTER_ADDR beyond one
//   node Slurm: SLURM_{PROCID,NTASKS,LOCALID,NODEID,STEP_ID,STEP_NODELIST,STEP_TASKS_PER_NODE} of a
//   step (srun), not of a batch script
using Environment = std::function<const char*(const char*)>;
Place find_place(const Environment& environment = nullptr);  // nullptr: getenv

// First host of a Slurm list: "node[07-09,12],other" -> "node07".
std::string first_host(const std::string& list);
// Of a node in Slurm's list, counted from 0: of "2(x3),1", node 3 has 1. Nothing beyond the list.
std::optional<int> tasks_of_node(const std::string& list, int node);

}  // namespace lehr::dist
