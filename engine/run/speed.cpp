#include "engine/run/speed.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "models/flops.h"
#include "models/products.h"

namespace lehr::run {
namespace {

struct Peak {
  const char* name;    // part of the device's
  double low, single;  // bf16 and fp16 on tensor cores; float32 outside of them
};
// more particular names first
const Peak kPeaks[] = {{"H100 PCIe", 756e12, 51e12},
                       {"H100 NVL", 835e12, 60e12},
                       {"H100", 989e12, 67e12},
                       {"H200", 989e12, 67e12},
                       {"A100", 312e12, 19.5e12}};

struct Meta {
  models::ModelContext context;
  std::shared_ptr<models::Model> model;
  explicit Meta(const Parts& parts) : context(parts.context) {
    context.options = context.options.device(at::kMeta);
    model = models::make_model(parts.recipe, context);
  }
};

at::Tensor result_of(const models::Product& product, const std::vector<at::Tensor>& in) {
  if (product.op == "aten::convolution")
    return at::conv2d(in[0], in[1], {}, product.stride, product.padding);
  if (product.op == "aten::scaled_dot_product_attention")
    return at::scaled_dot_product_attention(in[0], in[1], in[2], {}, 0, product.causal, {},
                                            in[0].size(1) != in[1].size(1));
  return in[0].matmul(in[1]);
}

double median_seconds(const models::Product& product, const at::TensorOptions& options,
                      DeviceRuntime* runtime) {
  using Clock = std::chrono::steady_clock;
  std::vector<at::Tensor> in;
  bool learns = false;
  for (size_t i = 0; i < product.sizes.size(); ++i) {
    at::Tensor factor = at::randn(product.sizes[i], options);
    if (factor.dim() == 4 && product.op == "aten::convolution")
      factor = factor.contiguous(at::MemoryFormat::ChannelsLast);
    in.push_back(factor.set_requires_grad(product.needs_gradient[i]));
    learns = learns || product.needs_gradient[i];
  }
  at::Tensor incoming;
  std::vector<double> times;
  const auto begin = Clock::now();
  constexpr double kSecondsEach = 0.5;
  while (times.size() < 4 ||
         (times.size() < 20 &&
          std::chrono::duration<double>(Clock::now() - begin).count() < kSecondsEach)) {
    if (runtime) runtime->synchronize();
    const auto start = Clock::now();
    const at::Tensor out = result_of(product, in);
    if (!incoming.defined()) incoming = at::ones_like(out);
    if (learns) out.backward(incoming);
    if (runtime) runtime->synchronize();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    for (auto& factor : in) factor.mutable_grad().reset();
  }
  times.erase(times.begin());  // allocations, and the library's choice of an algorithm
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

}  // namespace

double peak_flops(const std::string& device_name, const std::string& precision, bool tf32) {
  for (const auto& peak : kPeaks)
    if (device_name.find(peak.name) != std::string::npos)
      return precision != "fp32" ? peak.low : tf32 ? peak.low / 2 : peak.single;
  return 0;
}

double replay_seconds(const Parts& parts, const std::string& precision, DeviceRuntime* runtime) {
  at::TensorOptions options(runtime ? runtime->type() : at::kCPU);
  options = options.dtype(precision == "fp32"         ? at::kFloat
                          : precision == "fp16-mixed" ? at::kHalf
                                                      : at::kBFloat16);
  if (models::products_in_float(at::empty({0}, options))) options = options.dtype(at::kFloat);
  const Meta meta(parts);
  const int64_t micro = std::min(parts.plan.micro_batch, parts.plan.global_batch);
  double seconds = 0;
  for (const auto& product : models::products(*meta.model, meta.context, micro))
    seconds += static_cast<double>(product.times) * median_seconds(product, options, runtime);
  return seconds * static_cast<double>(parts.plan.global_batch) / static_cast<double>(micro);
}

double flops_per_sample(const Parts& parts) {
  const Meta meta(parts);
  return 3 * models::dry_run(*meta.model, meta.context).flops_per_sample_forward;
}

}  // namespace lehr::run
