// Layer norm beside ATen's, forward with backward, alone and with the residual addition.
#include <torch/csrc/autograd/autograd.h>

#include "kernels/layer_norm/layer_norm_op.h"
#include "tests/kernels/bench.h"
#include "tests/kernels/layer_norm_cases.h"

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

  add_pair("layer_norm/" + name, device, runtime, 5 * bytes, [=](bool ours) {
    return [=, x = random({shape.rows, shape.columns}), weight = random({shape.columns}),
            bias = random({shape.columns}), grad = random({shape.rows, shape.columns}).detach()] {
      const at::Tensor out = ours ? layer_norm(x, weight, bias, 1e-5)
                                  : at::layer_norm(x, {shape.columns}, weight, bias, 1e-5);
      benchmark::DoNotOptimize(torch::autograd::grad({out}, {x, weight, bias}, {grad}));
    };
  });
  add_pair("add_layer_norm/" + name, device, runtime, 8 * bytes, [=](bool ours) {
    return [=, x = random({shape.rows, shape.columns}),
            residual = random({shape.rows, shape.columns}), weight = random({shape.columns}),
            bias = random({shape.columns}), grad = random({shape.rows, shape.columns}).detach()] {
      at::Tensor out, sum;
      if (ours) {
        std::tie(out, sum) = add_layer_norm(x, residual, weight, bias, 1e-5);
      } else {
        sum = x + residual;
        out = at::layer_norm(sum, {shape.columns}, weight, bias, 1e-5);
      }
      benchmark::DoNotOptimize(
          torch::autograd::grad({out, sum}, {x, residual, weight, bias}, {grad, grad}));
    };
  });
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  for (const RowShape& shape : {RowShape{768, 128}, RowShape{768, 512}, RowShape{4096, 1024}})
    for (at::ScalarType type : {at::kFloat, at::kBFloat16}) add(shape, type, device, runtime);
});

}  // namespace
}  // namespace lehr::kernels
