// Device tests are written once and run on the CPU and, where there is one, on a GPU. Including
// this loads the CUDA half before the first ATen call, as LibTorch needs it.
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/base/device.h"

namespace lehr {

// "" when the GPU can be used.
inline std::string& no_gpu_because() {
  static std::string why;
  return why;
}

class CudaFirst : public testing::Environment {
 public:
  void SetUp() override {
    if (!gpu_present(&no_gpu_because())) return;
    if (cuda_library_path().empty())
      no_gpu_because() = "this build has no CUDA half";
    else
      load_cuda();
  }
};
inline testing::Environment* const kCudaFirst = testing::AddGlobalTestEnvironment(new CudaFirst);

class OnDevice : public testing::TestWithParam<at::DeviceType> {
 protected:
  void SetUp() override {
    if (GetParam() == at::kCUDA && !no_gpu_because().empty())
      GTEST_SKIP() << "not run on a GPU: " << no_gpu_because();
  }
  at::Device device() const { return GetParam(); }
};

inline std::string device_name(const testing::TestParamInfo<at::DeviceType>& info) {
  return info.param == at::kCUDA ? "cuda" : "cpu";
}

}  // namespace lehr
