// Token and position embedding beside the same in ATen's ops, forward and backward.
//   build/tests/bench_kernels --benchmark_filter=embedding
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/embedding/embedding_op.h"
#include "tests/kernels/bench.h"

namespace lehr::kernels {
namespace {

struct Shape {
  int64_t b, t, v, d;
};

void add(const Shape& shape, bool backward, at::Device device, DeviceRuntime* runtime) {
  for (bool ours : {true, false}) {
    const std::string name =
        fmt::format("embedding_add{}/{}/{}x{} of {}x{}/{}", backward ? "+backward" : "",
                    device.is_cuda() ? "cuda" : "cpu", shape.b, shape.t, shape.v, shape.d,
                    ours ? "lehr" : "aten");
    benchmark::RegisterBenchmark(
        name.c_str(),
        [=](benchmark::State& state) {
          const auto weight = at::randn({shape.v, shape.d}).to(device).requires_grad_(backward),
                     positions = at::randn({shape.t, shape.d}).to(device).requires_grad_(backward),
                     ids = at::randint(shape.v, {shape.b, shape.t}, at::kLong).to(device),
                     seed = at::randn({shape.b, shape.t, shape.d}).to(device);
          const int64_t moved = 8 * seed.numel();
          time_cold(state, device, runtime, moved + (backward ? moved + 4 * weight.numel() : 0),
                    [&] {
                      const auto output = ours ? embedding_add(weight, positions, ids)
                                               : at::embedding(weight, ids) + positions;
                      if (!backward) return benchmark::DoNotOptimize(output.const_data_ptr());
                      benchmark::DoNotOptimize(
                          torch::autograd::grad({output}, {weight, positions}, {seed}));
                    });
        })
        ->UseManualTime()
        ->Iterations(20)  // scrubbing caches takes the time
        ->Unit(benchmark::kMicrosecond);
  }
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  for (const Shape& shape : {Shape{12, 64, 65, 128}, Shape{8, 128, 50257, 384}})
    for (bool backward : {false, true}) add(shape, backward, device, runtime);
});

}  // namespace
}  // namespace lehr::kernels
