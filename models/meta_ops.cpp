// Shapes of the ops that LibTorch 2.11 can run on the meta device from Python only: convolution,
// norms, ReLU, index_select and attention. Registered for the whole process; nothing else of ours
// depends on them being here.
#include <ATen/ATen.h>
#include <torch/library.h>

namespace lehr::models {
namespace {

// One output extent; a transposed convolution is none of ours.
int64_t extent(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>&, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef, int64_t groups) {
  TORCH_CHECK(!transposed, "transposed convolution on the meta device");
  TORCH_CHECK(x.size(1) == weight.size(1) * groups, "convolution of ", x.size(1),
              " channels by a weight for ", weight.size(1) * groups);
  std::vector<int64_t> sizes{x.size(0), weight.size(0)};
  for (int64_t d = 2; d < x.dim(); ++d) {
    const auto i = static_cast<size_t>(d - 2);
    sizes.push_back(extent(x.size(d), weight.size(d), stride[i], padding[i], dilation[i]));
    TORCH_CHECK(sizes.back() > 0, "the convolution's kernel is larger than its padded input");
  }
  return at::empty(sizes, x.options(), x.suggest_memory_format());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm(const at::Tensor& x,
                                                          const std::optional<at::Tensor>&,
                                                          const std::optional<at::Tensor>&,
                                                          const std::optional<at::Tensor>&,
                                                          const std::optional<at::Tensor>&,
                                                          bool training, double, double) {
  const at::TensorOptions statistics = x.options().dtype(at::kFloat);
  const int64_t channels = training ? x.size(1) : 0;
  return {at::empty_like(x), at::empty({channels}, statistics), at::empty({channels}, statistics)};
}

at::Tensor relu(const at::Tensor& x) { return at::empty_like(x); }

at::Tensor index_select(const at::Tensor& x, int64_t dim, const at::Tensor& index) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.at(static_cast<size_t>(dim < 0 ? dim + x.dim() : dim)) = index.numel();
  return at::empty(sizes, x.options());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_norm(const at::Tensor& x,
                                                          at::IntArrayRef normalized,
                                                          const std::optional<at::Tensor>&,
                                                          const std::optional<at::Tensor>&,
                                                          double) {
  std::vector<int64_t> sizes = x.sizes().vec();
  std::fill(sizes.end() - static_cast<int64_t>(normalized.size()), sizes.end(), 1);
  const at::TensorOptions statistics = x.options().dtype(at::kFloat);
  return {at::empty_like(x), at::empty(sizes, statistics), at::empty(sizes, statistics)};
}

// without the [T, T] scores, which no implementation that runs holds
at::Tensor attention(const at::Tensor& q, const at::Tensor&, const at::Tensor& v,
                     const std::optional<at::Tensor>&, double, bool, std::optional<double>, bool) {
  return at::empty({q.size(0), q.size(2), q.size(1), v.size(3)}, q.options()).transpose(1, 2);
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("convolution_overrideable", convolution);
  m.impl("native_batch_norm", batch_norm);
  m.impl("relu", relu);
  m.impl("index_select", index_select);
  m.impl("scaled_dot_product_attention", attention);
  m.impl("native_layer_norm", layer_norm);
}

}  // namespace
}  // namespace lehr::models
