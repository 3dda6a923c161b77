// Threads of OpenMP regions; team.cpp has the entry points by which compilers and LibTorch reach
// it.
#pragma once

#include <cstdint>

namespace lehr {

// Since the process began, for tests and benchmarks; over all threads that enter regions.
struct TeamCounts {
  int64_t regions = 0;
  int64_t taken = 0;     // parts that another than their own thread computed
  int64_t absences = 0;  // times that a thread left its parts to others for a while
};
TeamCounts team_counts();

// False where an OpenMP library was found before this one, which then has all regions.
bool team_is_ours();

}  // namespace lehr
