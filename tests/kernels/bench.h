// Timing one call of an op with cold caches: between repeats a large buffer is rewritten, so that
// the figure is what a training step sees, not what a hot loop does.
#pragma once

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <chrono>

#include "engine/base/device.h"

namespace lehr {

constexpr int64_t kScrubBytes = 256 << 20;  // above the last cache of CPUs and GPUs alike

// Runs `call` under Google Benchmark's manual timing and reports microseconds and GB/s of `bytes`
// moved. `runtime` is nullptr on the CPU; on a GPU the time includes one launch and one wait (5-10
// us). `prepare` runs before every call and is not timed.
template <class Call, class Prepare>
void time_cold(benchmark::State& state, at::Device device, DeviceRuntime* runtime, int64_t bytes,
               Call call, Prepare prepare) {
  at::Tensor scrub = at::zeros({kScrubBytes / 4}, at::TensorOptions(device).dtype(at::kFloat));
  call();  // the first call allocates
  for (auto _ : state) {
    prepare();
    scrub.add_(1);
    if (runtime) runtime->synchronize();
    const auto begin = std::chrono::steady_clock::now();
    call();
    if (runtime) runtime->synchronize();
    state.SetIterationTime(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
template <class Call>
void time_cold(benchmark::State& state, at::Device device, DeviceRuntime* runtime, int64_t bytes,
               Call call) {
  time_cold(state, device, runtime, bytes, call, [] {});
}

// One per kernel: registers its benchmarks for a device.
namespace kernels {
void add_adamw(at::Device device, DeviceRuntime* runtime);
void add_cross_entropy(at::Device device, DeviceRuntime* runtime);
void add_embedding(at::Device device, DeviceRuntime* runtime);
}  // namespace kernels

}  // namespace lehr
