// How long the device itself takes.
#pragma once

#include <memory>

#include "engine/base/device.h"

namespace lehr::cuda {

std::unique_ptr<DeviceTimer> timer();

}  // namespace lehr::cuda
