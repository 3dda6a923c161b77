// SwiGLU on CUDA: device guard, current stream, error to exception.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/swiglu/swiglu_op.h"

namespace lehr::kernels {
namespace {

at::Tensor forward_on_cuda(const at::Tensor& gate_up) {
  const c10::cuda::CUDAGuard guard(gate_up.device());
  const SwiGluCall call = prepare_swiglu(gate_up);
  C10_CUDA_CHECK(swiglu_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.output;
}

at::Tensor backward_on_cuda(const at::Tensor& grad, const at::Tensor& gate_up) {
  const c10::cuda::CUDAGuard guard(gate_up.device());
  const SwiGluBackwardCall call = prepare_swiglu_backward(grad, gate_up);
  C10_CUDA_CHECK(swiglu_backward_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.grad_gate_up;
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("swiglu_forward", forward_on_cuda);
  m.impl("swiglu_backward", backward_on_cuda);
}

}  // namespace lehr::kernels
