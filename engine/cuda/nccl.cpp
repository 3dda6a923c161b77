// How a rank that hangs or dies ends the others on GPUs: PyTorch's watchdog thread sees the error
// or the timeout, and tears the process down, which `lehr launch` then names and starts again.
// Nothing is repaired inside a process. Its settings are written down here, not left to defaults
// that drift between releases (pytorch.org/docs/stable/torch_nccl_environment_variables.html).
#include "engine/cuda/nccl.h"

#ifdef LEHR_NCCL
#include <c10/cuda/CUDAFunctions.h>
#include <fmt/format.h>
#include <nccl.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "engine/base/error.h"

namespace lehr::cuda {

bool may_crash_on_abort(int version) { return version >= 22803 && version <= 22808; }

#ifdef LEHR_NCCL
namespace {

struct Setting {
  const char* name;
  std::string value;
};

// One that somebody else has set otherwise is an error, since a hang could then last for good.
void settle(const Setting& setting) {
  const char* found = std::getenv(setting.name);
  if (found && setting.value != found)
    throw Error(Code::kRanks,
                fmt::format("{}={} in the environment, and Lehr needs {}", setting.name, found,
                            setting.value),
                "", "unset it; parallelism.timeout says how long a collective may take");
  ::setenv(setting.name, setting.value.c_str(), 1);
}

}  // namespace

c10d::Backend* make_nccl(c10d::Store& store, int rank, int size, double timeout_s) {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess)
    throw Error(Code::kRanks, "NCCL does not say its version", "", "see lehr doctor");
  if (may_crash_on_abort(version))
    throw Error(Code::kRanks,
                fmt::format("NCCL {}.{}.{} may crash when a rank fails", version / 10000,
                            version % 10000 / 100, version % 100),
                "", "use 2.28.9 or newer, as LibTorch 2.11.0 brings it");
  if (version / 100 != NCCL_VERSION_CODE / 100)  // its structs are held by value
    throw Error(
        Code::kRanks,
        fmt::format("NCCL {} is loaded, and this build is of {}", version, NCCL_VERSION_CODE), "",
        "use the NCCL that came with LibTorch: see LD_LIBRARY_PATH and LD_PRELOAD");
  settle({"TORCH_NCCL_ASYNC_ERROR_HANDLING", "3"});  // end the process, do not clean up
  settle({"TORCH_NCCL_BLOCKING_WAIT", "0"});         // the stream waits, not the host
  settle({"TORCH_NCCL_ENABLE_MONITORING", "1"});     // a watchdog that hangs ends the process too
  settle({"TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", fmt::format("{:.0f}", timeout_s + 60)});
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1e3));
  auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      c10::intrusive_ptr<c10d::Store>::unsafe_reclaim_from_nonowning(&store), rank, size, options);
  // connects now, so that ranks that cannot are found at the start and not in the first step
  const at::Device device(at::kCUDA, c10::cuda::current_device());
  group->setBoundDeviceId(device);
  group->eagerConnectSingleDevice(device);
  return group.release();
}
#else
c10d::Backend* make_nccl(c10d::Store&, int, int, double) {
  throw Error(Code::kRanks, "this build has no NCCL", "",
              "build with the NVIDIA packages that scripts/setup installs");
}
#endif

}  // namespace lehr::cuda
