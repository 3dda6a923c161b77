// GELU on CUDA: device guard, current stream, error to exception.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/gelu/gelu_op.h"

namespace lehr::kernels {
namespace {

at::Tensor forward_on_cuda(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  const c10::cuda::CUDAGuard guard(x.device());
  const GeluCall call = prepare_gelu(x, bias);
  C10_CUDA_CHECK(gelu_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.output;
}

std::tuple<at::Tensor, at::Tensor> backward_on_cuda(const at::Tensor& grad, const at::Tensor& x,
                                                    const std::optional<at::Tensor>& bias) {
  const c10::cuda::CUDAGuard guard(x.device());
  const GeluBackwardCall call = prepare_gelu_backward(grad, x, bias);
  C10_CUDA_CHECK(gelu_backward_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.results();
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("gelu_forward", forward_on_cuda);
  m.impl("gelu_backward", backward_on_cuda);
}

}  // namespace lehr::kernels
