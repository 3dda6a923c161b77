// image_normalize beside the same in ATen's ops: time and bytes per second, on the CPU and, where
// there is one, on a GPU.
//   build/tests/bench_kernels [--benchmark_filter=REGEX]
#include <fmt/format.h>

#include "kernels/image_normalize/image_normalize_op.h"
#include "tests/kernels/bench.h"
#include "tests/kernels/image_normalize_cases.h"

namespace lehr::kernels {
namespace {

at::Tensor by_aten(const at::Tensor& images, const at::Tensor& scale, const at::Tensor& shift,
                   at::ScalarType type) {
  return images.permute({0, 3, 1, 2})
      .to(at::kFloat)
      .mul_(scale.view({1, -1, 1, 1}))
      .add_(shift.view({1, -1, 1, 1}))
      .to(type);
}

void add(const ImageShape& shape, at::ScalarType type, at::Device device, DeviceRuntime* runtime) {
  for (bool ours : {true, false}) {
    const std::string name =
        fmt::format("image_normalize/{}/{}/{}/{}", device.is_cuda() ? "cuda" : "cpu", shape.name(),
                    c10::toString(type), ours ? "lehr" : "aten");
    benchmark::RegisterBenchmark(
        name.c_str(),
        [=](benchmark::State& state) {
          const auto images =
              at::randint(256, {shape.n, shape.h, shape.w, shape.c}, at::kByte).to(device);
          std::vector<float> scale_values, shift_values;
          image_normalize_constants(shape.c, false, &scale_values, &shift_values);
          const auto scale = at::tensor(scale_values).to(device),
                     shift = at::tensor(shift_values).to(device);
          const int64_t bytes =
              shape.elements() * (1 + static_cast<int64_t>(c10::elementSize(type)));
          time_cold(state, device, runtime, bytes, [&] {
            benchmark::DoNotOptimize(ours ? image_normalize(images, scale, shift, type)
                                          : by_aten(images, scale, shift, type));
          });
        })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace
}  // namespace lehr::kernels

int main(int argc, char** argv) {
  using namespace lehr;
  std::string why;
  DeviceRuntime* runtime = nullptr;
  if (gpu_present(&why) && !cuda_library_path().empty()) runtime = load_cuda();  // before ATen
  if (!runtime) fmt::print("CUDA is not measured: {}\n", why.empty() ? "no CUDA half" : why);
  for (const kernels::ImageShape& shape :
       {kernels::ImageShape{128, 28, 28, 1}, kernels::ImageShape{128, 32, 32, 3},
        kernels::ImageShape{64, 224, 224, 3}}) {
    for (at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      kernels::add(shape, type, at::kCPU, nullptr);
      if (runtime) kernels::add(shape, type, at::kCUDA, runtime);
    }
  }
  for (auto add : {kernels::add_cross_entropy, kernels::add_adamw, kernels::add_embedding}) {
    add(at::kCPU, nullptr);
    if (runtime) add(at::kCUDA, runtime);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
