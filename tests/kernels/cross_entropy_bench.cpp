// The loss of a language model beside the same in ATen's ops, forward and backward: from logits,
// and from the last hidden state.
//   build/tests/bench_kernels --benchmark_filter=cross_entropy
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/cross_entropy/cross_entropy_op.h"
#include "tests/kernels/bench.h"

namespace lehr::kernels {
namespace {

struct Shape {
  int64_t n, v, d;
};

void add(const Shape& shape, at::ScalarType type, at::Device device, DeviceRuntime* runtime) {
  for (bool linear : {false, true}) {
    // a CPU that emulates bfloat16 products takes minutes over the large ones
    if (linear && shape.v > 1000 && type != at::kFloat && device.is_cpu()) continue;
    for (bool ours : {true, false}) {
      const std::string name = fmt::format(
          "{}cross_entropy/{}/{}x{}{}/{}/{}", linear ? "linear_" : "",
          device.is_cuda() ? "cuda" : "cpu", shape.n, shape.v,
          linear ? fmt::format("x{}", shape.d) : "", c10::toString(type), ours ? "lehr" : "aten");
      benchmark::RegisterBenchmark(
          name.c_str(),
          [=](benchmark::State& state) {
            const auto options = at::TensorOptions(device).dtype(type);
            const auto targets = at::randint(shape.v, {shape.n}, options.dtype(at::kLong));
            if (linear) {
              const auto hidden = at::randn({shape.n, shape.d}, options).requires_grad_(),
                         weight = (at::randn({shape.v, shape.d}, options) * 0.05)
                                      .detach()
                                      .requires_grad_();
              time_cold(state, device, runtime, 0, [&] {
                const auto sum = ours ? linear_cross_entropy_sum(hidden, weight, targets)
                                      : at::cross_entropy_loss(at::linear(hidden, weight), targets,
                                                               {}, at::Reduction::Sum);
                benchmark::DoNotOptimize(torch::autograd::grad({sum}, {hidden, weight}));
              });
              return;
            }
            // made by an op, as by a head, so that ours may consume it; the copy is not timed
            const auto values = at::randn({shape.n, shape.v}, options);
            const auto leaf = at::empty_like(values).requires_grad_();
            const auto make = [&] {
              at::Tensor logits = leaf.view_as(leaf).clone();
              logits.data().copy_(values);
              return logits;
            };
            at::Tensor logits = make();
            const int64_t bytes = 2 * logits.numel() * logits.element_size();
            time_cold(
                state, device, runtime, bytes,
                [&] {
                  const auto sum =
                      ours ? cross_entropy_sum(logits, targets)
                           : at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum);
                  benchmark::DoNotOptimize(torch::autograd::grad({sum}, {logits}));
                },
                [&] { logits = make(); });
          })
          ->UseManualTime()
          ->Iterations(linear && shape.v > 1000 ? 3 : 20)  // scrubbing caches takes the time
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  for (at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const Shape& shape : {Shape{768, 65, 128}, Shape{1024, 50257, 384}})
      add(shape, type, device, runtime);
});

}  // namespace
}  // namespace lehr::kernels
