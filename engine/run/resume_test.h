// `lehr resume-test`: proves on the user's own recipe that a run killed at random and continued
// ends with the bits of one that was not.
#pragma once

#include <string>
#include <vector>

#include "engine/track/track.h"

namespace lehr::run {

struct ResumeTestRequest {
  std::string program;  // this binary
  std::string recipe;
  std::vector<std::string> overrides;
  std::string folder;  // where both runs go; removed afterwards unless they differ
  int kills = 3;
  uint64_t seed = 0;
};
// True when weights, optimizer state and data position are equal, tensor for tensor.
bool resume_test(const ResumeTestRequest& request, track::Terminal& terminal);

}  // namespace lehr::run
