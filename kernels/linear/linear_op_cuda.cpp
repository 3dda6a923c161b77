// Linear layers on CUDA: device guard, ATen's handle, stream and memory, status to exception.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "kernels/linear/linear_op.h"

namespace lehr::kernels {
namespace {

// what NVIDIA recommends for Hopper, and cuBLAS's own size before it
uint64_t workspace_bytes() {
  return at::cuda::getCurrentDeviceProperties()->major >= 9 ? 32 << 20 : 4 << 20;
}

bool by_cublaslt(const Product& product) {
  at::DataPtr workspace;  // on the current stream: free for whoever comes after the product
  const CublasLt lt{at::cuda::getCurrentCUDABlasLtHandle(),
                    at::cuda::getCurrentCUDAStream(),
                    at::cuda::current_device(),
                    at::globalContext().allowTF32CuBLAS(),
                    workspace_bytes(),
                    [&](uint64_t bytes) {
                      workspace = c10::cuda::CUDACachingAllocator::get()->allocate(bytes);
                      return workspace.get();
                    }};
  const cublasStatus_t status = product_cuda(product, lt);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt says ", cublasLtGetStatusName(status),
              " to a product of [", product.rows, ", ", product.inner, "] by [", product.inner,
              ", ", product.columns, "] with epilogue ", static_cast<int>(product.epilogue),
              "; training.kernels: aten does without it");
  return true;
}

Two forward_on_cuda(const at::Tensor& x, const at::Tensor& weight,
                    const std::optional<at::Tensor>& bias, bool gelu) {
  const c10::cuda::CUDAGuard guard(x.device());
  return linear_forward_by(by_cublaslt, x, weight, bias, gelu);
}

Two grad_input_on_cuda(const at::Tensor& grad, const at::Tensor& weight,
                       const std::optional<at::Tensor>& before) {
  const c10::cuda::CUDAGuard guard(grad.device());
  return linear_grad_input_by(by_cublaslt, grad, weight, before);
}

Two grad_weight_on_cuda(const at::Tensor& grad, const at::Tensor& x, bool transposed, bool bias) {
  const c10::cuda::CUDAGuard guard(grad.device());
  return linear_grad_weight_by(by_cublaslt, grad, x, transposed, bias);
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("linear_forward", forward_on_cuda);
  m.impl("linear_grad_input", grad_input_on_cuda);
  m.impl("linear_grad_weight", grad_weight_on_cuda);
}

}  // namespace lehr::kernels
