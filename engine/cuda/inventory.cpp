// Devices through the CUDA runtime, free memory through NVML (cudaMemGetInfo would create a context
// of several hundred MB on every device of the node).
#include "engine/cuda/inventory.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <fmt/format.h>
#ifdef LEHR_NCCL
#include <nccl.h>
#endif

namespace lehr::cuda {
namespace {

// the three calls of NVML that we need; the library comes with the driver and has no link-time copy
class Nvml {
 public:
  Nvml() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    auto init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
    handle_ =
        reinterpret_cast<decltype(handle_)>(dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
    memory_ = reinterpret_cast<decltype(memory_)>(dlsym(library, "nvmlDeviceGetMemoryInfo"));
    ready_ = init && handle_ && memory_ && init() == 0;
  }
  // 0 when unknown
  int64_t free_bytes(const char* pci_bus_id) const {
    void* device = nullptr;
    struct {
      unsigned long long total, free, used;
    } memory{};
    if (!ready_ || handle_(pci_bus_id, &device) != 0 || memory_(device, &memory) != 0) return 0;
    return static_cast<int64_t>(memory.free);
  }

 private:
  int (*handle_)(const char*, void**) = nullptr;
  int (*memory_)(void*, void*) = nullptr;
  bool ready_ = false;
};

std::string dotted(int version) {  // 13000 -> "13.0"
  return version == 0 ? "none" : fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string cudnn_version() {
  const auto& hooks = at::detail::getCUDAHooks();
  if (!hooks.compiledWithCuDNN()) return "none";
  const long version = hooks.versionRuntimeCuDNN();  // 91900
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

std::string nccl_version() {
#ifdef LEHR_NCCL
  int version = 0;  // 22809
  if (ncclGetVersion(&version) != ncclSuccess) return "unknown";
  std::string text = fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
  // ProcessGroupNCCL holds NCCL's structs by value: header and library must be one
  if (version != NCCL_VERSION_CODE) text += fmt::format(" (built for {})", NCCL_VERSION_CODE);
  return text;
#else
  return "none";
#endif
}

}  // namespace

std::vector<DeviceInfo> devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();  // no driver or no device is no error here
    return {};
  }
  static const Nvml nvml;
  std::vector<DeviceInfo> list;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    char bus[32] = "";
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess ||
        cudaDeviceGetPCIBusId(bus, sizeof(bus), i) != cudaSuccess) {
      (void)cudaGetLastError();
      continue;
    }
    list.push_back({properties.name, static_cast<int64_t>(properties.totalGlobalMem),
                    nvml.free_bytes(bus), properties.major, properties.minor});
  }
  return list;
}

std::string versions() {
  int runtime = 0, driver = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  (void)cudaDriverGetVersion(&driver);
  (void)cudaGetLastError();
  return fmt::format("CUDA {}, driver {}, cuDNN {}, NCCL {}, kernels for {}", dotted(runtime),
                     dotted(driver), cudnn_version(), nccl_version(), LEHR_CUDA_TARGETS);
}

}  // namespace lehr::cuda
