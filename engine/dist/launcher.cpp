#include "engine/dist/launcher.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <string_view>
#include <vector>

#include "engine/base/error.h"

namespace lehr::dist {
namespace {

// ports below 20000 are used by others, those from 32768 on are handed out by the kernel
constexpr uint16_t kFirstPort = 20000, kPorts = 10000;

class Reader {
 public:
  Reader(const Environment& environment, std::string launcher)
      : environment_(environment), launcher_(std::move(launcher)) {}

  std::string text(const char* name, const char* otherwise = nullptr) {
    if (const char* value = environment_(name); value && *value) return value;
    if (otherwise) return otherwise;
    missing_.push_back(name);
    return "";
  }
  // A whole number from `low` to `high`.
  int number(const char* name, int low, int high, std::optional<int> otherwise = std::nullopt) {
    const char* value = environment_(name);
    if (!value || !*value) {
      if (!otherwise) missing_.push_back(name);
      return otherwise.value_or(low);
    }
    const std::string digits = value;
    int result = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), result);
    if (error != std::errc() || end != digits.data() + digits.size())
      refuse(fmt::format("{}={} is no whole number", name, digits));
    if (result < low || result > high)
      refuse(high == kMost ? fmt::format("{}={} is below {}", name, digits, low)
                           : fmt::format("{}={} is not from {} to {}", name, digits, low, high));
    return result;
  }
  int count(const char* name, std::optional<int> otherwise = std::nullopt) {
    return number(name, 1, kMost, otherwise);
  }
  int index(const char* name, std::optional<int> otherwise = std::nullopt) {
    return number(name, 0, kMost, otherwise);
  }
  uint16_t port(const char* name, std::optional<int> otherwise = std::nullopt) {
    return static_cast<uint16_t>(number(name, 1, 65535, otherwise));
  }
  // `index` counts from 0 and `size` says how many there are.
  void within(const char* index_name, int index, const char* size_name, int size) const {
    if (missing_.empty() && index >= size)
      refuse(fmt::format("{}={} is not below {}={}", index_name, index, size_name, size));
  }
  void done() const {
    if (!missing_.empty())
      refuse(fmt::format("the environment lacks {}", fmt::join(missing_, ", ")));
  }

 private:
  static constexpr int kMost = std::numeric_limits<int>::max();

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Code::kUsage, what, launcher_,
                "launch all ranks alike, or unset this launcher's variables to train on one");
  }

  const Environment& environment_;
  std::string launcher_;
  std::vector<const char*> missing_;
};

// the same for all ranks of a job, rarely the same for two jobs
uint16_t port_of(const std::string& job) {
  return static_cast<uint16_t>(kFirstPort + std::hash<std::string>()(job) % kPorts);
}

}  // namespace

Place find_place(const Environment& given) {
  const Environment environment =
      given ? given : [](const char* name) -> const char* { return std::getenv(name); };
  const auto has = [&](const char* name) {
    const char* value = environment(name);
    return value && *value;
  };
  Place place;
  if (has("RANK") || has("WORLD_SIZE")) {
    place.launcher = has("LEHR_LAUNCH")           ? "lehr launch"
                     : has("TORCHELASTIC_RUN_ID") ? "torchrun"
                                                  : "PyTorchJob";
    Reader read(environment, place.launcher);
    place.rank = read.index("RANK");
    place.size = read.count("WORLD_SIZE");
    // a PyTorchJob runs one process a pod and says nothing about the node
    const bool alone = place.launcher == "PyTorchJob";
    place.local_rank = read.index("LOCAL_RANK", alone ? std::optional(0) : std::nullopt);
    place.local_size = read.count("LOCAL_WORLD_SIZE", alone ? std::optional(1) : std::nullopt);
    place.address = read.text("MASTER_ADDR");
    place.port = read.port("MASTER_PORT");
    place.agent_keeps_store = read.text("TORCHELASTIC_USE_AGENT_STORE", "False") == "True";
    place.attempt = std::to_string(read.index("TORCHELASTIC_RESTART_COUNT", 0));
    place.job = read.text(alone ? "LEHR_JOB" : "TORCHELASTIC_RUN_ID", "");
    if (has("LEHR_STORE_FD")) place.listening_fd = read.index("LEHR_STORE_FD");
    read.done();
    read.within("RANK", place.rank, "WORLD_SIZE", place.size);
    read.within("LOCAL_RANK", place.local_rank, "LOCAL_WORLD_SIZE", place.local_size);
  } else if (has("OMPI_COMM_WORLD_SIZE") || has("OMPI_COMM_WORLD_RANK")) {
    place.launcher = "mpirun";
    Reader read(environment, place.launcher);
    place.rank = read.index("OMPI_COMM_WORLD_RANK");
    place.size = read.count("OMPI_COMM_WORLD_SIZE");
    place.local_rank = read.index("OMPI_COMM_WORLD_LOCAL_RANK");
    place.local_size = read.count("OMPI_COMM_WORLD_LOCAL_SIZE");
    const bool one_node = place.local_size == place.size;
    place.address = read.text("MASTER_ADDR", one_node ? "127.0.0.1" : nullptr);
    place.job = read.text("PMIX_NAMESPACE", "") + read.text("OMPI_MCA_ess_base_jobid", "");
    place.port = read.port("MASTER_PORT", port_of(place.job));
    read.done();
    read.within("OMPI_COMM_WORLD_RANK", place.rank, "OMPI_COMM_WORLD_SIZE", place.size);
    read.within("OMPI_COMM_WORLD_LOCAL_RANK", place.local_rank, "OMPI_COMM_WORLD_LOCAL_SIZE",
                place.local_size);
  } else if (has("SLURM_STEP_ID") && has("SLURM_STEP_NODELIST")) {
    place.launcher = "srun";
    Reader read(environment, place.launcher);
    place.rank = read.index("SLURM_PROCID");
    place.size = read.count("SLURM_NTASKS");
    place.local_rank = read.index("SLURM_LOCALID");
    const std::string first = first_host(read.text("SLURM_STEP_NODELIST"));
    const bool one_node = read.count("SLURM_STEP_NUM_NODES", 1) == 1;
    place.local_size = one_node ? place.size
                                : tasks_of_node(read.text("SLURM_STEP_TASKS_PER_NODE", ""),
                                                read.index("SLURM_NODEID", 0))
                                      .value_or(place.local_rank + 1);
    place.address = read.text("MASTER_ADDR", first.c_str());
    place.job = read.text("SLURM_JOB_ID", "") + "." + read.text("SLURM_STEP_ID");
    place.port = read.port("MASTER_PORT", port_of(place.job));
    place.attempt = std::to_string(read.index("SLURM_RESTART_COUNT", 0));
    read.done();
    read.within("SLURM_PROCID", place.rank, "SLURM_NTASKS", place.size);
    read.within("SLURM_LOCALID", place.local_rank,
                one_node ? "SLURM_NTASKS" : "SLURM_STEP_TASKS_PER_NODE", place.local_size);
  } else if (has("PET_NNODES") || has("PET_NODE_RANK")) {
    place.launcher = "TrainJob";
    Reader read(environment, place.launcher);
    // a count, or "auto" or "gpu": torchrun would start so many
    if (const std::string each = read.text("PET_NPROC_PER_NODE", "1"); each != "1")
      throw Error(Code::kUsage,
                  fmt::format("PET_NPROC_PER_NODE={} wants torchrun to start the ranks of a node, "
                              "and this is one process",
                              each),
                  place.launcher, "write numProcPerNode: 1 for a rank a pod");
    place.rank = read.index("PET_NODE_RANK");
    place.size = read.count("PET_NNODES");
    place.address = read.text("PET_MASTER_ADDR");
    place.port = read.port("PET_MASTER_PORT");
    place.job = read.text("LEHR_JOB", "");
    read.done();
    read.within("PET_NODE_RANK", place.rank, "PET_NNODES", place.size);
  } else if (has("PMI_SIZE") && std::string_view(environment("PMI_SIZE")) != "1") {
    // each of them would take itself for the only one
    throw Error(
        Code::kUsage,
        fmt::format("PMI_SIZE={}: MPICH's or Intel's mpiexec started this, which Lehr does not "
                    "read",
                    environment("PMI_SIZE")),
        "mpiexec", "launch with Open MPI's mpirun, srun, torchrun or lehr launch");
  }
  return place;
}

std::optional<int> tasks_of_node(const std::string& list, int node) {
  int tasks = 0, nodes = 0, length = 0;
  for (const char* at = list.c_str(); *at; at += length) {
    if (*at == ',') ++at;
    if (std::sscanf(at, "%d%n", &tasks, &length) != 1) break;
    at += length;
    if (std::sscanf(at, "(x%d)%n", &nodes, &length) != 1) nodes = 1, length = 0;
    if (node < nodes) return tasks;
    node -= nodes;
  }
  return std::nullopt;
}

std::string first_host(const std::string& list) {
  const size_t bracket = list.find('['), comma = list.find(',');
  if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
  const size_t end = list.find_first_of("-,]", bracket);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1);
}

}  // namespace lehr::dist
