// A feed-forward layer beside ATen's ops, forward with backward, on a GPU: on a CPU both are
// ATen's.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/linear/linear_op.h"
#include "tests/kernels/bench.h"

namespace lehr::kernels {
namespace {

void add(int64_t rows, int64_t width, at::ScalarType type, at::Device device,
         DeviceRuntime* runtime) {
  const int64_t between = 4 * width, size = static_cast<int64_t>(c10::elementSize(type));
  const std::string name = "linear_gelu_linear/cuda/" + std::to_string(rows) + "x" +
                           std::to_string(width) + "/" + c10::toString(type);
  const int64_t bytes = size * (6 * rows * width + 8 * rows * between + 6 * width * between);
  add_pair(name, device, runtime, bytes, [=](bool ours) {
    const auto options = at::TensorOptions(device).dtype(type);
    const auto random = [&](at::IntArrayRef sizes) {
      return (at::randn(sizes, options) * 0.05).requires_grad_();
    };
    return [=, x = random({rows, width}), w1 = random({width, between}), b1 = random({between}),
            w2 = random({between, width}), b2 = random({width}),
            grad = at::randn({rows, width}, options)] {
      const at::Tensor y =
          ours ? linear_gelu_linear(x, w1.t(), b1, w2.t(), b2)
               : at::linear(at::gelu(at::linear(x, w1.t(), b1), "tanh"), w2.t(), b2);
      benchmark::DoNotOptimize(torch::autograd::grad({y}, {x, w1, b1, w2, b2}, {grad}));
    };
  });
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  if (!device.is_cuda()) return;
  for (auto [count, width] : {std::pair<int64_t, int64_t>{768, 128}, {4096, 768}, {8192, 2048}})
    for (at::ScalarType type : {at::kFloat, at::kBFloat16})
      add(count, width, type, device, runtime);
});

}  // namespace
}  // namespace lehr::kernels
