// Every kernel beside the same in ATen's ops: time and bytes per second, on the CPU and, where
// there is one, on a GPU.
//   build/tests/bench_kernels [--benchmark_filter=REGEX] --benchmark_repetitions=5
//     --benchmark_enable_random_interleaving=true
#include <fmt/format.h>

#include "tests/kernels/bench.h"

int main(int argc, char** argv) {
  using namespace lehr;
  std::string why;
  DeviceRuntime* runtime = nullptr;
  if (gpu_present(&why) && !cuda_library_path().empty()) runtime = load_cuda();  // before ATen
  if (!runtime) fmt::print("CUDA is not measured: {}\n", why.empty() ? "no CUDA half" : why);
  for (const AddRows& add : benchmarks()) {
    add(at::kCPU, nullptr);
    if (runtime) add(at::kCUDA, runtime);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
