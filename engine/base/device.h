// What the rest of Lehr knows of an accelerator. The CUDA half (liblehr_cuda.so) implements this
// and is loaded on demand, before any ATen call (LibTorch caches for good that there is no CUDA).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace at {
class Tensor;
}
namespace c10 {
enum class DeviceType : int8_t;
}
namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace lehr {

struct DeviceInfo {
  std::string name;
  int64_t total_bytes = 0, free_bytes = 0;
  int major = 0, minor = 0;  // compute capability
};

// Work of the device that was recorded and is launched again as one piece, on the current stream.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void replay() = 0;
};

// Takes the time of the device's own work, for which the host does not wait.
class DeviceTimer {
 public:
  virtual ~DeviceTimer() = default;
  virtual void begin() = 0;  // in the order of the current stream
  virtual void end() = 0;
  virtual double seconds() = 0;  // of the pair before the newest, once done; 0: there is none
};

// Copies to the host under way.
class CopyOut {
 public:
  virtual ~CopyOut() = default;
  virtual void block() = 0;  // what the current stream is given from now on comes after the copies
  virtual void wait() = 0;   // until the bytes are there; from any thread
};

class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  virtual c10::DeviceType type() const = 0;  // of its tensors
  virtual std::vector<DeviceInfo> devices() = 0;
  virtual std::string versions() = 0;  // CUDA runtime, driver, cuDNN, NCCL, one line
  virtual at::Tensor pin(const at::Tensor& host) = 0;
  // Copies pinned `host` on the copy stream and makes the current stream wait for it.
  virtual at::Tensor copy_in(const at::Tensor& host) = 0;
  // Begins to copy tensors, each in row-major order, to as many places in pinned memory; on a
  // stream of its own, after what the current stream holds. Until a block(), nobody may change
  // them.
  virtual std::unique_ptr<CopyOut> copy_out(const std::vector<at::Tensor>& from,
                                            const std::vector<void*>& to) = 0;
  // Makes memory of the caller's pinned, and plain again before it is given back.
  virtual void lock_pages(void* memory, size_t bytes) = 0;
  virtual void unlock_pages(void* memory) = 0;
  virtual void synchronize() = 0;
  virtual int64_t peak_bytes() = 0;                                 // of the caching allocator
  virtual std::unique_ptr<DeviceTimer> timer() { return nullptr; }  // nullptr: has none
  // Calls work(false) a few times to warm up, then work(true) while recording, in which nothing
  // runs and the host may not wait for the device. Tensors that work makes then keep their memory,
  // which every replay overwrites. Throws what work throws, and c10::Error for what cannot be
  // recorded.
  virtual std::unique_ptr<RecordedWork> record(const std::function<void(bool)>& work) = 0;
  // Whether ranks sum its tensors where they are; else those cross to the host.
  virtual bool has_collectives() const { return false; }
  // NCCL's group of `size` ranks that meet at `store`, one GPU each: a new reference, which the
  // caller takes over. nullptr: this device has none.
  virtual c10d::Backend* make_nccl(c10d::Store& /*store*/, int /*rank*/, int /*size*/,
                                   double /*timeout_s*/) {
    return nullptr;
  }
};

// Of several ranks on a node, lets this process see its own GPU alone, as its number 0. Before
// gpu_present. A launcher that has done so already is left to it.
void see_own_gpu(int local_rank, int local_size);

// A device of another library, which tests bring: `training.device` takes its name from then on.
// Before main.
void register_device(const std::string& name, DeviceRuntime* runtime);
// nullptr: no such device was registered. "cuda" never is: it is loaded on demand.
DeviceRuntime* registered_device(const std::string& name);
// What `training.device` takes: auto, cpu, cuda, and what was registered.
std::vector<std::string> device_names();

// True when libcuda.so.1 loads, cuInit succeeds and a device is there; never touches ATen. When
// not, `why` (if given) says what is missing.
bool gpu_present(std::string* why = nullptr);
// Loads liblehr_cuda.so (beside liblehr.so, or LEHR_CUDA_LIBRARY), compares build stamps, returns
// its runtime; the same pointer on later calls. Throws Error{kUsage} when it is missing or of
// another build.
DeviceRuntime* load_cuda();
// Where liblehr_cuda.so is looked for, or "" when it is not there.
std::string cuda_library_path();
// Identifies this build: version, LibTorch version, compiler, flags, numerics version.
std::string build_stamp();

}  // namespace lehr
