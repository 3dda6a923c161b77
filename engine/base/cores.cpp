#include "engine/base/cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>

namespace lehr {
namespace {

constexpr double kNone = 1e9;

// of "max 100000" or "400000 100000"
double cores_of(const std::string& cpu_max) {
  std::istringstream text(cpu_max);
  double quota = 0, period = 0;
  return text >> quota >> period && quota > 0 && period > 0 ? quota / period : kNone;
}

std::string line_of(const std::string& path) {
  std::string line;
  std::getline(std::ifstream(path), line);
  return line;
}

// The smallest quota from a group up to the root. Inside a container the group may be named as the
// host sees it: then only the root is there.
template <class Quota>
double smallest(const std::string& mount, std::string group, const Quota& quota) {
  double cores = kNone;
  for (;;) {
    cores = std::min(cores, quota(mount + group));
    if (group.empty() || group == "/") return cores;
    group.erase(group.rfind('/'));
  }
}

}  // namespace

int64_t own_cores() {
  // larger machines than cpu_set_t holds answer EINVAL
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max<int64_t>(1, std::thread::hardware_concurrency());
}

int64_t usable_cores(const std::string& root) {
  const std::string mount = root + "/sys/fs/cgroup";
  double cores = kNone;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // "0::/path" of the second version, "4:cpu,cpuacct:/path" of the first
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,")
      cores = std::min(cores, smallest(mount, group, [](const std::string& folder) {
                         return cores_of(line_of(folder + "/cpu.max"));
                       }));
    else if (controllers.find(",cpu,") != std::string::npos)
      for (const char* name : {"/cpu", "/cpu,cpuacct"})
        cores = std::min(cores, smallest(mount + name, group, [](const std::string& folder) {
                           return cores_of(line_of(folder + "/cpu.cfs_quota_us") + " " +
                                           line_of(folder + "/cpu.cfs_period_us"));
                         }));
  }
  return std::max<int64_t>(1, std::min(own_cores(), static_cast<int64_t>(std::floor(cores))));
}

}  // namespace lehr
