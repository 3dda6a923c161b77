// SwiGLU beside ATen's silu and product, forward with backward.
#include <torch/csrc/autograd/autograd.h>

#include "kernels/swiglu/swiglu_op.h"
#include "tests/kernels/bench.h"
#include "tests/kernels/swiglu_cases.h"

namespace lehr::kernels {
namespace {

void add(const RowShape& shape, at::ScalarType type, at::Device device, DeviceRuntime* runtime) {
  const std::string name = std::string("swiglu/") + (device.is_cuda() ? "cuda/" : "cpu/") +
                           shape.name() + "/" + c10::toString(type);
  const int64_t bytes = shape.rows * shape.columns * static_cast<int64_t>(c10::elementSize(type));
  add_pair(name, device, runtime, 8 * bytes, [=](bool ours) {
    const auto options = at::TensorOptions(device).dtype(type);
    return [=, x = at::randn({shape.rows, 2 * shape.columns}, options).requires_grad_(),
            grad = at::randn({shape.rows, shape.columns}, options)] {
      at::Tensor out;
      if (ours) {
        out = swiglu(x);
      } else {
        const std::vector<at::Tensor> halves = x.chunk(2, -1);
        out = at::silu(halves[0]) * halves[1];
      }
      benchmark::DoNotOptimize(torch::autograd::grad({out}, {x}, {grad}));
    };
  });
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  for (const RowShape& shape : {RowShape{768, 384}, RowShape{4096, 1024}})
    for (at::ScalarType type : {at::kFloat, at::kBFloat16}) add(shape, type, device, runtime);
});

}  // namespace
}  // namespace lehr::kernels
