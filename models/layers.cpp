#include "models/layers.h"

#include <ATen/ATen.h>

#include <cmath>

#include "models/batch_norm.h"
#include "models/products.h"

namespace lehr::models {

Linear::Linear(const Scope& scope, int64_t in, int64_t out) {
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  weight_ = add_parameter("weight", scope.uniform("weight", {out, in}, bound));
  bias_ = add_parameter("bias", scope.uniform("bias", {out}, bound));
}

at::Tensor Linear::forward(const at::Tensor& x) const { return models::linear(x, weight_, bias_); }

Conv2d::Conv2d(const Scope& scope, const ConvShape& shape) : shape_(shape) {
  const double area = static_cast<double>(shape.kernel * shape.kernel);
  const double bound = 1 / std::sqrt(static_cast<double>(shape.in) * area);
  const double deviation = std::sqrt(2 / (static_cast<double>(shape.out) * area));
  const std::array<int64_t, 4> sizes{shape.out, shape.in, shape.kernel, shape.kernel};
  at::Tensor weight = shape.init == ConvInit::kUniform ? scope.uniform("weight", sizes, bound)
                                                       : scope.normal("weight", sizes, deviation);
  weight_ = add_parameter("weight", weight.contiguous(at::MemoryFormat::ChannelsLast));
  if (shape.bias) bias_ = add_parameter("bias", scope.uniform("bias", {shape.out}, bound));
}

at::Tensor Conv2d::forward(const at::Tensor& x) const {
  return models::conv2d(x, weight_, bias_, shape_.stride, shape_.padding);
}

BatchNorm2d::BatchNorm2d(const Scope& scope, int64_t channels) {
  weight_ = add_parameter("weight", scope.filled({channels}, 1));
  bias_ = add_parameter("bias", scope.filled({channels}, 0));
  // statistics stay float32 whatever the weights are
  const at::TensorOptions statistics = scope.options().dtype(at::kFloat);
  running_mean_ = add_buffer("running_mean", at::zeros({channels}, statistics));
  running_var_ = add_buffer("running_var", at::ones({channels}, statistics));
  num_batches_tracked_ =
      add_buffer("num_batches_tracked", at::zeros({}, scope.options().dtype(at::kLong)));
}

at::Tensor BatchNorm2d::forward(const at::Tensor& x) {
  if (is_training()) num_batches_tracked_.add_(1);
  return batch_norm(x, weight_, bias_, running_mean_, running_var_, is_training());
}

at::Tensor max_pool(const at::Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  return at::max_pool2d(x, kernel, stride, padding);
}

at::Tensor mean_pool(const at::Tensor& x) { return x.mean({2, 3}); }

at::Tensor channels_last(const at::Tensor& x) {
  // with one channel every layout counts as channels-last, and the strides decide which path ATen
  // takes: give the channel the stride 1 that the other maps have
  if (x.size(1) == 1) return x.squeeze(1).contiguous().unsqueeze(3).permute({0, 3, 1, 2});
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

}  // namespace lehr::models
