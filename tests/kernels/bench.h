// Timing one call of an op: with cold caches, a large buffer being rewritten between repeats (what
// reads memory), or with warm ones (the activations of a small model stay in the caches of a CPU).
// Every kernel's benchmark file registers its rows; kernels_bench.cpp runs them.
#pragma once

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/device.h"

namespace lehr {

// `kernel` adds its rows for one device; `runtime` is nullptr on the CPU.
using AddRows = std::function<void(at::Device device, DeviceRuntime* runtime)>;
inline std::vector<AddRows>& benchmarks() {
  static std::vector<AddRows> list;
  return list;
}
struct BenchmarkRows {
  explicit BenchmarkRows(AddRows add) { benchmarks().push_back(std::move(add)); }
};

constexpr int kColdIterations = 10;         // the scrubbing between them takes the time
constexpr int64_t kScrubBytes = 256 << 20;  // above the last cache of CPUs and GPUs alike

// Runs `call` under Google Benchmark's manual timing and reports microseconds and GB/s of `bytes`
// moved. `runtime` is nullptr on the CPU; on a GPU the time includes one launch and one wait (5-10
// us). `prepare` runs before every call and is not timed.
template <class Call, class Prepare>
void time_call(benchmark::State& state, at::Device device, DeviceRuntime* runtime, int64_t bytes,
               bool cold, Call call, Prepare prepare) {
  at::Tensor scrub;
  if (cold) scrub = at::zeros({kScrubBytes / 4}, at::TensorOptions(device).dtype(at::kFloat));
  call();  // the first call allocates
  for (auto _ : state) {
    prepare();
    if (cold) scrub.add_(1);
    if (runtime) runtime->synchronize();
    const auto begin = std::chrono::steady_clock::now();
    call();
    if (runtime) runtime->synchronize();
    state.SetIterationTime(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
template <class Call, class Prepare>
void time_cold(benchmark::State& state, at::Device device, DeviceRuntime* runtime, int64_t bytes,
               Call call, Prepare prepare) {
  time_call(state, device, runtime, bytes, true, std::move(call), std::move(prepare));
}
template <class Call>
void time_cold(benchmark::State& state, at::Device device, DeviceRuntime* runtime, int64_t bytes,
               Call call) {
  time_cold(state, device, runtime, bytes, std::move(call), [] {});
}

// Four rows, NAME/{cold,warm}/{lehr,aten}: what `make` builds is called again and again.
// `make(ours)` is called once per row and returns a function without arguments.
template <class Make>
void add_pair(const std::string& name, at::Device device, DeviceRuntime* runtime, int64_t bytes,
              Make make) {
  for (bool cold : {true, false})
    for (bool ours : {true, false}) {
      const std::string row = name + (cold ? "/cold" : "/warm") + (ours ? "/lehr" : "/aten");
      auto* benchmark = benchmark::RegisterBenchmark(row.c_str(),
                                                     [=](benchmark::State& state) {
                                                       time_call(state, device, runtime, bytes,
                                                                 cold, make(ours), [] {});
                                                     })
                            ->UseManualTime()
                            ->Unit(benchmark::kMicrosecond);
      if (cold) benchmark->Iterations(kColdIterations);
    }
}

}  // namespace lehr
