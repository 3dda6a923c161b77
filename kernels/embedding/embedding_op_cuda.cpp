// embedding and its backward on CUDA: ids sorted by ATen, guard, current stream, error to
// exception.
#include <ATen/ops/sort.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/embedding/embedding_op.h"

namespace lehr::kernels {
namespace {

at::Tensor on_cuda(const at::Tensor& weight, const std::optional<at::Tensor>& positions,
                   const at::Tensor& ids) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const EmbeddingCall call = prepare_embedding(weight, positions, ids);
  C10_CUDA_CHECK(embedding_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.output;
}

at::Tensor backward_on_cuda(const at::Tensor& gradient, const std::optional<at::Tensor>& ids,
                            int64_t rows) {
  const c10::cuda::CUDAGuard guard(gradient.device());
  EmbeddingGradientCall call = prepare_embedding_gradient(gradient, ids, rows);
  at::Tensor sorted, order;
  if (call.ids.defined()) {
    std::tie(sorted, order) = at::sort(call.ids.view({-1}), /*stable=*/true, 0, false);
    call.args.sorted_ids = sorted.const_data_ptr<int64_t>();
    call.args.order = order.const_data_ptr<int64_t>();
  }
  C10_CUDA_CHECK(embedding_gradient_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.result;
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("embedding", on_cuda);
  m.impl("embedding_backward", backward_on_cuda);
}

}  // namespace lehr::kernels
