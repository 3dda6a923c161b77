// liblehr_cuda.so on whatever machine this is: it loads without a driver, refuses another build,
// and holds device code for the promised architectures.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <set>

#include "engine/base/device.h"
#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/dist/world.h"

namespace lehr {
namespace {

class CudaLibrary : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_library_path().empty()) GTEST_SKIP() << "this build has no CUDA half";
  }
};

TEST_F(CudaLibrary, LoadsAndCountsDevicesWithOrWithoutADriver) {
  DeviceRuntime* runtime = load_cuda();  // before any ATen call of this process
  ASSERT_NE(runtime, nullptr);
  EXPECT_EQ(runtime, load_cuda());
  std::string why;
  EXPECT_EQ(runtime->devices().empty(), !gpu_present(&why)) << why;
  runtime->synchronize();
  EXPECT_GE(runtime->peak_bytes(), 0);
}

TEST_F(CudaLibrary, NamesItsVersions) {
  const std::string versions = load_cuda()->versions();
  for (const char* part : {"CUDA 1", "driver ", "cuDNN ", "NCCL ", "sm_80 sm_90 compute_90"})
    EXPECT_NE(versions.find(part), std::string::npos) << versions;
}

// Every op of ours that has a kernel for the CPU: but attention, which ATen has for a GPU.
TEST_F(CudaLibrary, BringsTheCudaHalfOfEveryKernel) {
  load_cuda();
  auto& dispatcher = c10::Dispatcher::singleton();
  const auto on = [&](const c10::OperatorName& name, c10::DispatchKey key) {
    return dispatcher.findOp(name)->hasKernelForDispatchKey(key);
  };
  std::set<std::string> on_cpu_alone, on_both;
  for (const c10::OperatorName& name : dispatcher.getAllOpNames())
    if (name.name.starts_with("lehr::") && on(name, c10::DispatchKey::CPU))
      (on(name, c10::DispatchKey::CUDA) ? on_both : on_cpu_alone).insert(name.name);
  EXPECT_EQ(on_cpu_alone, (std::set<std::string>{"lehr::causal_attention_backward",
                                                 "lehr::causal_attention_forward"}));
  EXPECT_GE(on_both.size(), 15U);
  // on a CPU they are made of ATen's ops
  for (const char* name :
       {"lehr::linear_forward", "lehr::linear_grad_input", "lehr::linear_grad_weight"})
    EXPECT_TRUE(on({name, ""}, c10::DispatchKey::CUDA)) << name;
}

TEST_F(CudaLibrary, RefusesAnotherBuildAndSaysWhichItIs) {
  load_cuda();
  void* library = dlopen(cuda_library_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  auto entry = reinterpret_cast<DeviceRuntime* (*)(const char*, const char**)>(
      dlsym(library, "lehr_cuda_runtime"));
  ASSERT_NE(entry, nullptr);
  const char* problem = nullptr;
  EXPECT_EQ(entry("lehr 0.0.0, another compiler", &problem), nullptr);
  ASSERT_NE(problem, nullptr);
  EXPECT_NE(std::string(problem).find(build_stamp()), std::string::npos) << problem;
}

TEST_F(CudaLibrary, CopiesBatchesThroughPinnedMemory) {
  std::string why;
  if (!gpu_present(&why)) GTEST_SKIP() << "not run on a GPU: " << why;
  DeviceRuntime* runtime = load_cuda();
  const at::Tensor host = at::arange(2 * 3 * 5 * 7, at::kFloat)
                              .view({2, 3, 5, 7})
                              .contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor pinned = runtime->pin(host);
  EXPECT_TRUE(pinned.is_pinned());
  const at::Tensor device = runtime->copy_in(pinned);
  EXPECT_TRUE(device.is_cuda());
  EXPECT_EQ(device.strides(), host.strides());
  EXPECT_TRUE(at::equal(device.cpu(), host));
  EXPECT_GT(runtime->peak_bytes(), 0);
}

// Several ranks need several GPUs: this is the wiring.
TEST_F(CudaLibrary, JoinsAnNcclGroupOfOne) {
  std::string why;
  if (!gpu_present(&why)) GTEST_SKIP() << "not run on a GPU: " << why;
  dist::Place place;
  place.address = "127.0.0.1";
  place.port = static_cast<uint16_t>(20000 + getpid() % 9000);
  const auto world =
      dist::open_world(place, {.timeout_s = 60, .device = load_cuda(), .even_alone = true});
  const auto on_gpu = at::TensorOptions(at::kCUDA);
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor values = at::arange(6, on_gpu.dtype(type));
    at::Tensor sum = values.clone(), part = at::zeros_like(values), all = at::zeros_like(values);
    world->sum(sum);
    world->broadcast(sum);
    world->begin_reduce_scatter(values.clone(), part)->wait();
    world->begin_all_gather(values, all)->wait();
    for (const at::Tensor& got : {sum, part, all, world->gather(values).at(0)})
      EXPECT_TRUE(at::equal(got, values)) << at::toString(type);
  }
  at::Tensor on_cpu = at::ones({3}), on_part = at::ones({3}, on_gpu);
  world->sum(on_cpu);
  world->split(0)->sum(on_part);
  EXPECT_TRUE(at::equal(on_part.cpu(), on_cpu));
}

// The fat binaries inside the library: what cuobjdump lists, without needing it. Each begins with a
// header (magic, version, header size, bytes) and holds entries (kind 1: PTX, 2: cubin;
// architecture).
TEST_F(CudaLibrary, HoldsCubinsForSm80AndSm90AndPtxForWhatComesAfter) {
  const std::string file = read_file(cuda_library_path());
  const auto number = [&](size_t at, size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, file.data() + at, bytes);
    return value;
  };
  std::set<std::string> found;
  const std::string magic = "\x50\xed\x55\xba";
  for (size_t at = file.find(magic); at != std::string::npos; at = file.find(magic, at + 4)) {
    const size_t begin = at + number(at + 6, 2), end = begin + number(at + 8, 8);
    if (end > file.size()) continue;  // the magic in some other place
    for (size_t entry = begin; entry + 32 <= end;) {
      const uint64_t kind = number(entry, 2), header = number(entry + 4, 4);
      found.insert((kind == 1 ? "PTX " : "cubin ") + std::to_string(number(entry + 28, 4)));
      entry += header + number(entry + 8, 8);
      if (header == 0) break;
    }
  }
  EXPECT_EQ(found, (std::set<std::string>{"cubin 80", "cubin 90", "PTX 90"}));
}

}  // namespace
}  // namespace lehr
