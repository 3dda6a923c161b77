// How near training comes to what its device can do.
#pragma once

#include <string>

#include "engine/base/device.h"
#include "engine/run/plan.h"

namespace lehr::run {

// Floating-point operations per second of a GPU's data sheet (NVIDIA's, dense) in the precision of
// the products (fp32 with `tf32`: on tensor cores too); 0 for a device that is not in the table,
// and for a CPU.
double peak_flops(const std::string& device_name, const std::string& precision, bool tf32 = false);

// The matrix products, convolutions and attention of one step of `parts`, forward and backward,
// done alone by the library's best operators, one after the other: no training step that computes
// them all is faster. Seconds (medians) for a global batch. `runtime`: of the GPU, or null.
double replay_seconds(const Parts& parts, const std::string& precision, DeviceRuntime* runtime);

// Of the forward and backward of a sample: three times the forward's (models/flops.h).
double flops_per_sample(const Parts& parts);

}  // namespace lehr::run
