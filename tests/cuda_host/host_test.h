// What tests of host-compiled kernels share: run under every schedule, same bits, nothing found.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/buffer.h"

namespace cuda_host {

// `run` launches once on fresh buffers and returns the output; it must be the same, bit for bit,
// under every schedule, and free of findings. Returns that output.
template <class Run>
auto run_under_every_schedule(Run run) {
  decltype(run()) first;
  for (const Schedule& schedule : schedules()) {
    set_schedule(schedule);
    auto output = run();
    EXPECT_EQ(take_findings(), std::vector<std::string>{}) << to_string(schedule);
    if (schedule.order == Schedule::Order::kForward) {
      first = std::move(output);
      continue;
    }
    EXPECT_EQ(first.size(), output.size());
    if (!first.empty() && first.size() == output.size()) {
      EXPECT_EQ(std::memcmp(first.data(), output.data(), first.size() * sizeof(first[0])), 0)
          << "other bits under schedule " << to_string(schedule);
    }
  }
  return first;
}

}  // namespace cuda_host
