// Whether a plan's micro-batches are large enough for the model's batch norm.
#pragma once

#include <string>
#include <vector>

#include "engine/run/plan.h"

namespace lehr::run {

// Samples of each micro-batch of a step of `count` samples, as the loader cuts it for `ranks`;
// `together`: those of one round over the ranks are one.
std::vector<int64_t> micro_batches(const Plan& plan, int64_t count, int64_t ranks,
                                   bool together = false);
// A single value a channel has no variance and is normalised to 0, whatever it was. Throws
// Error{kRecipe} where that is all that a batch norm of the model would ever see; where it happens
// now and then (a short last step), gives the warning that says so, else "".
std::string check_batch_norm(const Parts& parts, int64_t ranks);

}  // namespace lehr::run
