// Collectives of a device that has none of its own.
#pragma once

#include <memory>

#include "engine/dist/world.h"

namespace lehr::dist {

// `world`, whose collectives take tensors of the CPU, for those of a device too: they cross to the
// host and back, and the host waits. The bits are those of the CPU.
std::unique_ptr<World> by_host(std::unique_ptr<World> world);

}  // namespace lehr::dist
