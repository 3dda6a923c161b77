// The layers that models are made of. Each makes its own parameters inside a Scope, with the names,
// shapes and initial distributions of PyTorch's layer of that name, so that weights can be
// exchanged.
#pragma once

#include "models/module.h"
#include "models/scope.h"

namespace lehr::models {

// weight [out, in] and bias [out], both uniform within 1 / sqrt(in).
class Linear : public Module {
 public:
  Linear(const Scope& scope, int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& x) const;  // [..., in] -> [..., out]

 private:
  at::Tensor weight_, bias_;
};

enum class ConvInit {
  kUniform,  // PyTorch's default: uniform within 1 / sqrt(in * kernel^2)
  kFanOut,   // torchvision's ResNet: normal, variance 2 / (out * kernel^2)
};

struct ConvShape {
  int64_t in = 0, out = 0, kernel = 3, stride = 1, padding = 1;
  bool bias = true;
  ConvInit init = ConvInit::kUniform;
};

// weight [out, in, kernel, kernel], in channels-last memory where `in` and `kernel` leave a choice.
class Conv2d : public Module {
 public:
  Conv2d(const Scope& scope, const ConvShape& shape);
  at::Tensor forward(const at::Tensor& x) const;  // [B, in, H, W] -> [B, out, H', W']

 private:
  ConvShape shape_;
  at::Tensor weight_, bias_;
};

// Momentum 0.1, epsilon 1e-5. In training it normalises by the statistics of the (micro-)batch and
// moves the running ones; in eval it uses those.
class BatchNorm2d : public Module {
 public:
  BatchNorm2d(const Scope& scope, int64_t channels);
  at::Tensor forward(const at::Tensor& x);  // [B, C, H, W], same shape

 private:
  at::Tensor weight_, bias_, running_mean_, running_var_, num_batches_tracked_;
};

at::Tensor max_pool(const at::Tensor& x, int64_t kernel, int64_t stride, int64_t padding = 0);
at::Tensor mean_pool(const at::Tensor& x);  // [B, C, H, W] -> [B, C]
// The same values in channels-last memory, also for one channel, where ATen takes any layout for
// it.
at::Tensor channels_last(const at::Tensor& x);

}  // namespace lehr::models
