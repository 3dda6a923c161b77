// How many cores this process may use: those of its affinity, and what a container's quota leaves.
#pragma once

#include <cstdint>
#include <string>

namespace lehr {

// Cores that threads of this process may run on (sched_getaffinity).
int64_t own_cores();
// The same within the CPU quota of its cgroups (cpu.max, or cpu.cfs_quota_us of the first version),
// rounded down; at least 1. `root`: where /proc and /sys lie, for tests.
int64_t usable_cores(const std::string& root = "");

}  // namespace lehr
