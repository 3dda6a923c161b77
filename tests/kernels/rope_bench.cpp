// RoPE beside the usual composition of ATen's ops, forward with backward.
#include <torch/csrc/autograd/autograd.h>

#include "kernels/rope/rope_op.h"
#include "tests/kernels/bench.h"
#include "tests/kernels/rope_cases.h"

namespace lehr::kernels {
namespace {

at::Tensor by_aten(const at::Tensor& qkv, const at::Tensor& cos, const at::Tensor& sin,
                   const RopeShape& shape) {
  const int64_t turned = shape.heads + shape.kv_heads;
  const at::Tensor x =
      qkv.view({shape.batch, shape.positions, shape.heads + 2 * shape.kv_heads, shape.head_dim});
  const at::Tensor qk = x.slice(2, 0, turned);
  const std::vector<at::Tensor> halves = qk.chunk(2, -1);
  const at::Tensor result = qk * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
  return at::cat({result, x.slice(2, turned)}, 2).view(qkv.sizes());
}

void add(const RopeShape& shape, at::ScalarType type, at::Device device, DeviceRuntime* runtime) {
  const std::string name = std::string("rope/") + (device.is_cuda() ? "cuda/" : "cpu/") +
                           std::to_string(shape.batch * shape.positions) + "x" +
                           std::to_string(shape.columns()) + "/" + c10::toString(type);
  const int64_t bytes = shape.elements() * static_cast<int64_t>(c10::elementSize(type));
  add_pair(name, device, runtime, 4 * bytes, [=](bool ours) {
    const auto options = at::TensorOptions(device).dtype(type);
    const at::Tensor table = at::tensor(rope_table(shape.positions, shape.head_dim))
                                 .view({shape.positions, shape.head_dim})
                                 .to(device);
    const std::vector<at::Tensor> halves = table.view({-1, 1, shape.head_dim}).chunk(2, -1);
    return
        [=, cos = at::cat({halves[0], halves[0]}, -1).to(type),
         sin = at::cat({halves[1], halves[1]}, -1).to(type),
         qkv = at::randn({shape.batch, shape.positions, shape.columns()}, options).requires_grad_(),
         grad = at::randn({shape.batch, shape.positions, shape.columns()}, options)] {
          const at::Tensor out = ours
                                     ? rope(qkv, table, shape.heads, shape.kv_heads, shape.head_dim)
                                     : by_aten(qkv, cos, sin, shape);
          benchmark::DoNotOptimize(torch::autograd::grad({out}, {qkv}, {grad}));
        };
  });
}

const BenchmarkRows rows([](at::Device device, DeviceRuntime* runtime) {
  for (const RopeShape& shape : {RopeShape{12, 64, 4, 4, 32}, RopeShape{8, 512, 8, 2, 64}})
    for (at::ScalarType type : {at::kFloat, at::kBFloat16}) add(shape, type, device, runtime);
});

}  // namespace
}  // namespace lehr::kernels
