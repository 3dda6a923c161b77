// One optimizer step beside ATen's fused AdamW with what a training step does around it: global
// norm, clipping, moving average, 16-bit copy.
//   build/tests/bench_kernels --benchmark_filter='adamw|global_norm'
#include <fmt/format.h>

#include "kernels/adamw/adamw_op.h"
#include "tests/kernels/bench.h"

namespace lehr::kernels {
namespace {

using Tensors = std::vector<at::Tensor>;

// the tensors of a GPT: embedding, blocks, norms
std::vector<std::vector<int64_t>> model_shapes(int64_t vocabulary, int64_t width, int layers) {
  std::vector<std::vector<int64_t>> shapes = {{vocabulary, width}, {width}};
  for (int layer = 0; layer < layers; ++layer)
    for (const auto& shape : std::vector<std::vector<int64_t>>{{width},
                                                               {3 * width, width},
                                                               {width, width},
                                                               {width},
                                                               {4 * width, width},
                                                               {width, 4 * width}})
      shapes.push_back(shape);
  return shapes;
}

void add(const char* model, const std::vector<std::vector<int64_t>>& shapes, bool extras,
         at::Device device, DeviceRuntime* runtime) {
  for (bool ours : {true, false}) {
    const std::string name =
        fmt::format("adamw{}/{}/{}/{}", extras ? "+average+bf16" : "",
                    device.is_cuda() ? "cuda" : "cpu", model, ours ? "lehr" : "aten");
    benchmark::RegisterBenchmark(
        name.c_str(),
        [=](benchmark::State& state) {
          const auto make = [&](double scale, at::ScalarType type = at::kFloat) {
            Tensors tensors;
            for (const auto& shape : shapes)
              tensors.push_back((at::randn(shape) * scale).to(device, type));
            return tensors;
          };
          AdamWGroup group = {make(0.05), make(0.01), make(0), make(0), {}, {}, 1e-3, 0.1};
          int64_t elements = 0;
          for (const auto& t : group.parameters) elements += t.numel();
          if (extras) {
            group.averages = make(0.05);
            group.copies = make(0, at::kBFloat16);
          }
          const auto count = at::ones({}, at::TensorOptions(device).dtype(at::kFloat));
          const Tensors counts(shapes.size(), count);
          AdamWOptions options;
          options.max_norm = 1;
          options.ema_decay = 0.999;
          time_cold(state, device, runtime, elements * (32 + (extras ? 10 : 0)), [&] {
            if (ours) {
              benchmark::DoNotOptimize(adamw_step({group}, options));
              return;
            }
            const auto norm = at::stack(at::_foreach_norm(group.gradients, 2)).norm();
            at::_fused_adamw_(group.parameters, group.gradients, group.exp_avg, group.exp_avg_sq,
                              {}, counts, 1e-3, 0.9, 0.999, 0.1, 1e-8, false, false,
                              norm.div(options.max_norm).clamp_min(1));
            if (!extras) return;
            at::_foreach_lerp_(group.averages, group.parameters, 1 - options.ema_decay);
            at::_foreach_copy_(group.copies, group.parameters);
          });
        })
        ->UseManualTime()
        ->Iterations(20)  // scrubbing caches takes the time
        ->Unit(benchmark::kMicrosecond);
  }
}

void add_norm(const char* model, const std::vector<std::vector<int64_t>>& shapes, at::Device device,
              DeviceRuntime* runtime) {
  for (bool ours : {true, false}) {
    const std::string name = fmt::format("global_norm/{}/{}/{}", device.is_cuda() ? "cuda" : "cpu",
                                         model, ours ? "lehr" : "aten");
    benchmark::RegisterBenchmark(
        name.c_str(),
        [=](benchmark::State& state) {
          Tensors tensors;
          int64_t elements = 0;
          for (const auto& shape : shapes) {
            tensors.push_back(at::randn(shape).to(device));
            elements += tensors.back().numel();
          }
          time_cold(state, device, runtime, elements * 4, [&] {
            benchmark::DoNotOptimize(ours ? global_norm(tensors)
                                          : at::stack(at::_foreach_norm(tensors, 2)).norm());
          });
        })
        ->UseManualTime()
        ->Iterations(20)  // scrubbing caches takes the time
        ->Unit(benchmark::kMicrosecond);
  }
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  for (auto [model, shapes] : {std::pair{"0.8M in 26 tensors", model_shapes(65, 128, 4)},
                               std::pair{"30M in 38 tensors", model_shapes(50257, 384, 6)}}) {
    for (bool extras : {false, true}) add(model, shapes, extras, device, runtime);
    add_norm(model, shapes, device, runtime);
  }
});

}  // namespace
}  // namespace lehr::kernels
