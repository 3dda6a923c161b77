// Layer norm on CUDA: device guard, current stream, error to exception.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/layer_norm/layer_norm_op.h"

namespace lehr::kernels {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> forward_on_cuda(
    const at::Tensor& x, const std::optional<at::Tensor>& residual, const at::Tensor& weight,
    const at::Tensor& bias, double eps) {
  const c10::cuda::CUDAGuard guard(x.device());
  const LayerNormCall call = prepare_layer_norm(x, residual, weight, bias, eps);
  C10_CUDA_CHECK(layer_norm_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return {call.output, call.sum, call.stats};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_on_cuda(
    const at::Tensor& grad, const std::optional<at::Tensor>& grad_sum, const at::Tensor& x,
    const at::Tensor& stats, const at::Tensor& weight) {
  const c10::cuda::CUDAGuard guard(x.device());
  const LayerNormBackwardCall call = prepare_layer_norm_backward(grad, grad_sum, x, stats, weight);
  C10_CUDA_CHECK(layer_norm_backward_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.results();
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("layer_norm_forward", forward_on_cuda);
  m.impl("layer_norm_backward", backward_on_cuda);
}

}  // namespace lehr::kernels
