// cross_entropy on CUDA: device guard, current stream, error to exception.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/cross_entropy/cross_entropy_op.h"

namespace lehr::kernels {
namespace {

void on_cuda(at::Tensor logits, const at::Tensor& targets, at::Tensor losses, double scale,
             double label_smoothing, double z_loss, int64_t vocabulary, bool gradient) {
  const c10::cuda::CUDAGuard guard(logits.device());
  C10_CUDA_CHECK(
      cross_entropy_cuda(prepare_cross_entropy(logits, targets, losses, scale, label_smoothing,
                                               z_loss, vocabulary, gradient),
                         c10::cuda::getCurrentCUDAStream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) { m.impl("cross_entropy_", on_cuda); }

}  // namespace lehr::kernels
