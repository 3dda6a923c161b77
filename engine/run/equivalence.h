// `lehr equivalence`: shows on the user's own recipe that ranks and micro-batches change nothing
// but rounding, or under fixed order nothing at all.
#pragma once

#include <string>
#include <vector>

#include "engine/track/track.h"

namespace lehr::run {

struct EquivalenceRequest {
  std::string program;  // this binary
  std::string recipe;
  std::vector<std::string> overrides;
  std::vector<int> ranks{1, 2}, accumulate{1, 2};
  int64_t steps = 10;
  std::string folder;  // where the runs go; removed afterwards unless a bound is missed
};
// One short training for each pair, compared with one rank and one micro-batch: the largest
// relative difference of a step's loss, and of the weights at the end against the largest weight.
// The bound is 1e-3 for both; under parallelism.reduction: fixed_order (ranks alone) it is 0; a
// model with batch statistics has none, since they are taken per micro-batch. True when every bound
// is met.
bool equivalence(const EquivalenceRequest& request, track::Terminal& terminal);

}  // namespace lehr::run
