// Finds out whether there is a GPU without waking LibTorch, and loads the CUDA half when asked.
#include "engine/base/device.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>

#include "engine/base/error.h"
#include "engine/base/stamp.h"

namespace lehr {
namespace {

constexpr const char* kLibrary = "liblehr_cuda.so";

// the one entry of liblehr_cuda.so: nullptr and a `problem` when the stamps differ or it cannot
// start
using Entry = DeviceRuntime* (*)(const char* build_stamp, const char** problem);

std::string folder_of_this_library() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&gpu_present), &info) == 0 || !info.dli_fname) return "";
  std::string path = info.dli_fname;
  size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

template <class Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

std::map<std::string, DeviceRuntime*>& registered() {
  static std::map<std::string, DeviceRuntime*> devices;
  return devices;
}

}  // namespace

void register_device(const std::string& name, DeviceRuntime* runtime) {
  registered()[name] = runtime;
}

DeviceRuntime* registered_device(const std::string& name) {
  const auto found = registered().find(name);
  return found == registered().end() ? nullptr : found->second;
}

std::vector<std::string> device_names() {
  std::vector<std::string> names{"auto", "cpu", "cuda"};
  for (const auto& [name, runtime] : registered()) names.push_back(name);
  return names;
}

void see_own_gpu(int local_rank, int local_size) {
  constexpr const char* kVisible = "CUDA_VISIBLE_DEVICES";
  if (local_size == 1) return;
  const char* listed = std::getenv(kVisible);
  if (!listed) {
    ::setenv(kVisible, std::to_string(local_rank).c_str(), 1);
    return;
  }
  std::vector<std::string> gpus;
  std::istringstream stream(listed);
  for (std::string gpu; std::getline(stream, gpu, ',');) gpus.push_back(gpu);
  if (gpus.size() <= 1) return;
  const auto mine = static_cast<size_t>(local_rank);
  if (mine >= gpus.size())
    throw Error(Code::kRanks,
                fmt::format("{} ranks on a node that shows {} GPUs ({}={})", local_size,
                            gpus.size(), kVisible, listed),
                "", "start as many ranks as there are GPUs");
  ::setenv(kVisible, gpus[mine].c_str(), 1);
}

bool gpu_present(std::string* why) {
  auto no = [&](std::string reason) {
    if (why) *why = std::move(reason);
    return false;
  };
  // left open: the driver keeps threads and state of its own
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!driver) return no("no NVIDIA driver (libcuda.so.1 does not load)");
  auto init = symbol<int (*)(unsigned)>(driver, "cuInit");
  auto count = symbol<int (*)(int*)>(driver, "cuDeviceGetCount");
  if (!init || !count) return no("libcuda.so.1 lacks cuInit or cuDeviceGetCount");
  if (int error = init(0)) return no(fmt::format("cuInit failed with CUDA error {}", error));
  int devices = 0;
  if (int error = count(&devices))
    return no(fmt::format("cuDeviceGetCount failed with CUDA error {}", error));
  if (devices == 0) return no("the NVIDIA driver shows no device (CUDA_VISIBLE_DEVICES?)");
  return true;
}

std::string cuda_library_path() {
  const char* chosen = std::getenv("LEHR_CUDA_LIBRARY");
  std::string path = chosen && *chosen ? chosen : folder_of_this_library() + "/" + kLibrary;
  return access(path.c_str(), R_OK) == 0 ? path : "";
}

DeviceRuntime* load_cuda() {
  static std::mutex mutex;
  static DeviceRuntime* runtime = nullptr;
  std::lock_guard lock(mutex);
  if (runtime) return runtime;

  std::string path = cuda_library_path();
  if (path.empty()) {
    const char* chosen = std::getenv("LEHR_CUDA_LIBRARY");
    throw Error(Code::kUsage, "the CUDA half of Lehr is not there",
                chosen && *chosen ? chosen : folder_of_this_library() + "/" + kLibrary,
                "build with -DLEHR_CUDA=ON, or train with training.device: cpu");
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw Error(Code::kUsage, fmt::format("does not load: {}", dlerror()), path,
                "rebuild it beside this liblehr.so");
  auto entry = symbol<Entry>(library, "lehr_cuda_runtime");
  if (!entry)
    throw Error(Code::kUsage, "is no CUDA half of Lehr (it lacks lehr_cuda_runtime)", path);
  const char* problem = nullptr;
  std::string stamp = build_stamp();
  runtime = entry(stamp.c_str(), &problem);
  if (!runtime)
    throw Error(Code::kUsage, problem ? problem : "did not start", path,
                "rebuild both halves together: this one is " + stamp);
  return runtime;
}

std::string build_stamp() { return kBuildStamp; }

}  // namespace lehr
