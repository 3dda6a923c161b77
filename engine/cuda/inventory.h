// What is there: the devices and the versions of NVIDIA's libraries. Creates no CUDA context, so
// that asking costs no memory on any device.
#pragma once

#include <string>
#include <vector>

#include "engine/base/device.h"

namespace lehr::cuda {

// Visible devices in CUDA's order; {} without a driver or a device. free_bytes comes from NVML and
// is 0 where that is missing.
std::vector<DeviceInfo> devices();
// "CUDA 13.0, driver 13.0, cuDNN 9.19.0, NCCL 2.28.9, kernels for sm_80 sm_90 compute_90"
std::string versions();

}  // namespace lehr::cuda
