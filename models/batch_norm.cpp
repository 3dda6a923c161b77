#include "models/batch_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

namespace lehr::models {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

thread_local const SumOverRanks* shared = nullptr;

std::vector<int64_t> all_but_channels(const at::Tensor& x) {
  std::vector<int64_t> dimensions(static_cast<size_t>(x.dim()) - 1, 0);
  std::iota(dimensions.begin() + 1, dimensions.end(), 2);
  return dimensions;
}

// [C] beside x
at::Tensor beside(const at::Tensor& x, const at::Tensor& values) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[1] = values.size(0);
  return values.to(at::kFloat).view(shape);
}

class SharedBatchNorm : public torch::autograd::Function<SharedBatchNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, at::Tensor running_mean, at::Tensor running_var,
                            double momentum, double eps, const SumOverRanks* sum) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const at::Tensor values = x.to(at::kFloat);
    const int64_t channels = x.size(1);
    const double own = static_cast<double>(x.numel() / channels);
    auto [var, mean] = at::var_mean(values, all_but_channels(x), /*unbiased=*/false);
    mean = mean.to(at::kDouble), var = var.to(at::kDouble);
    // moments about 0 add up; they cancel in float64, so float32 statistics keep their digits
    const at::Tensor sums =
        at::cat({at::full({1}, own, mean.options()), mean * own, (var + mean * mean) * own});
    (*sum)(sums);
    const at::Tensor count = sums[0];  // stays there: nobody waits for a device
    mean = sums.narrow(0, 1, channels) / count;
    var = (sums.narrow(0, 1 + channels, channels) / count - mean * mean).clamp_min(0);
    running_mean.mul_(1 - momentum).add_(mean, momentum);
    // of one value the variance is not known, and stays
    const at::Tensor moved = (count > 1).to(at::kDouble) * momentum;
    running_var.mul_(1 - moved).add_(var * (moved * count / (count - 1).clamp_min(1)));
    const at::Tensor scale = (var + eps).rsqrt();
    context->save_for_backward({x, weight, mean, scale, count});
    context->saved_data["sum"] = reinterpret_cast<int64_t>(sum);
    return ((values - beside(x, mean)) * beside(x, scale * weight) + beside(x, bias))
        .to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &scale = saved[3],
                     &count = saved[4];
    const auto* sum = reinterpret_cast<const SumOverRanks*>(context->saved_data["sum"].toInt());
    const at::Tensor grad = grads[0].to(at::kFloat);
    const at::Tensor normal = (x.to(at::kFloat) - beside(x, mean)) * beside(x, scale);
    const auto over = all_but_channels(x);
    const int64_t channels = x.size(1);
    const at::Tensor of_bias = grad.sum(over), of_weight = (grad * normal).sum(over);
    const at::Tensor means = at::cat({of_bias, of_weight}).to(at::kDouble);
    (*sum)(means);
    means.div_(count);
    const at::Tensor of_x = (grad - beside(x, means.narrow(0, 0, channels)) -
                             normal * beside(x, means.narrow(0, channels, channels))) *
                            beside(x, scale * weight);
    return {of_x.to(x.scalar_type()),
            of_weight.to(weight.scalar_type()),
            of_bias.to(weight.scalar_type()),
            {},
            {},
            {},
            {},
            {}};
  }
};

}  // namespace

SharedBatchScope::SharedBatchScope(const SumOverRanks* sum) : before_(shared) { shared = sum; }
SharedBatchScope::~SharedBatchScope() { shared = before_; }

at::Tensor batch_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& running_mean, const at::Tensor& running_var,
                      bool is_training, double momentum, double eps) {
  if (shared && is_training)
    return SharedBatchNorm::apply(x, weight, bias, running_mean, running_var, momentum, eps,
                                  shared);
  const bool has_variance = !is_training || x.numel() > x.size(1);
  return at::batch_norm(x, weight, bias, running_mean,
                        has_variance ? running_var : running_var.clone(), is_training, momentum,
                        eps, /*cudnn_enabled=*/true);
}

}  // namespace lehr::models
