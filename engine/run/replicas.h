// Gives the run the check that ranks hold the same weights, bit for bit.
#pragma once

#include "engine/base/named_tensor.h"
#include "engine/dist/world.h"

namespace lehr::run {

// Called by all ranks with their own `tensors` after `step`, which may be on `device`; all bytes
// then cross to the host, at the speed of the link and of the hash (some GB/s). Throws
// Error{kRanks} that names the ranks whose memory differs from most others', or says that there is
// no majority.
void require_same_replicas(dist::World& world, const NamedTensors& tensors, int64_t step,
                           DeviceRuntime* device = nullptr);

}  // namespace lehr::run
