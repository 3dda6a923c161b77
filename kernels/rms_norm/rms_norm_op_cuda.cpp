// RMS norm on CUDA: device guard, current stream, error to exception.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/rms_norm/rms_norm_op.h"

namespace lehr::kernels {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> forward_on_cuda(
    const at::Tensor& x, const std::optional<at::Tensor>& residual, const at::Tensor& weight,
    double eps) {
  const c10::cuda::CUDAGuard guard(x.device());
  const RmsNormCall call = prepare_rms_norm(x, residual, weight, eps);
  C10_CUDA_CHECK(rms_norm_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return {call.output, call.sum, call.rstd};
}

std::tuple<at::Tensor, at::Tensor> backward_on_cuda(const at::Tensor& grad,
                                                    const std::optional<at::Tensor>& grad_sum,
                                                    const at::Tensor& x, const at::Tensor& rstd,
                                                    const at::Tensor& weight) {
  const c10::cuda::CUDAGuard guard(x.device());
  const RmsNormBackwardCall call = prepare_rms_norm_backward(grad, grad_sum, x, rstd, weight);
  C10_CUDA_CHECK(rms_norm_backward_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.results();
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("rms_norm_forward", forward_on_cuda);
  m.impl("rms_norm_backward", backward_on_cuda);
}

}  // namespace lehr::kernels
