// Work recorded as a CUDA graph.
#pragma once

#include <functional>
#include <memory>

#include "engine/base/device.h"

namespace lehr::cuda {

std::unique_ptr<RecordedWork> record(const std::function<void(bool)>& work);

}  // namespace lehr::cuda
