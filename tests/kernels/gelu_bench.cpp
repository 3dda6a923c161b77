// GELU beside ATen's, forward with backward, alone and with the bias of the linear layer before it.
#include <torch/csrc/autograd/autograd.h>

#include "kernels/gelu/gelu_op.h"
#include "tests/kernels/bench.h"
#include "tests/kernels/gelu_cases.h"

namespace lehr::kernels {
namespace {

void add(const RowShape& shape, at::ScalarType type, at::Device device, DeviceRuntime* runtime) {
  const std::string name =
      std::string(device.is_cuda() ? "cuda/" : "cpu/") + shape.name() + "/" + c10::toString(type);
  const int64_t bytes = shape.rows * shape.columns * static_cast<int64_t>(c10::elementSize(type));
  const auto options = at::TensorOptions(device).dtype(type);
  const auto random = [=](at::IntArrayRef sizes) {
    return at::randn(sizes, options).requires_grad_();
  };

  add_pair("gelu/" + name, device, runtime, 5 * bytes, [=](bool ours) {
    return [=, x = random({shape.rows, shape.columns}),
            grad = random({shape.rows, shape.columns}).detach()] {
      const at::Tensor out = ours ? kernels::gelu(x) : at::gelu(x, "tanh");
      benchmark::DoNotOptimize(torch::autograd::grad({out}, {x}, {grad}));
    };
  });
  add_pair("bias_gelu/" + name, device, runtime, 5 * bytes, [=](bool ours) {
    return [=, x = random({shape.rows, shape.columns}), bias = random({shape.columns}),
            grad = random({shape.rows, shape.columns}).detach()] {
      const at::Tensor out = ours ? bias_gelu(x, bias) : at::gelu(x + bias, "tanh");
      benchmark::DoNotOptimize(torch::autograd::grad({out}, {x, bias}, {grad}));
    };
  });
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  for (const RowShape& shape : {RowShape{768, 128}, RowShape{768, 512}, RowShape{4096, 1024}})
    for (at::ScalarType type : {at::kFloat, at::kBFloat16}) add(shape, type, device, runtime);
});

}  // namespace
}  // namespace lehr::kernels
