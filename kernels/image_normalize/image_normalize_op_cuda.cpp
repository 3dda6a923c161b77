// image_normalize on CUDA: device guard, current stream, error to exception.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/image_normalize/image_normalize_op.h"

namespace lehr::kernels {
namespace {

at::Tensor on_cuda(const at::Tensor& images, const at::Tensor& scale, const at::Tensor& shift,
                   at::ScalarType type) {
  const c10::cuda::CUDAGuard guard(images.device());
  const ImageNormalizeCall call = prepare_image_normalize(images, scale, shift, type);
  C10_CUDA_CHECK(image_normalize_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.output;
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) { m.impl("image_normalize", on_cuda); }

}  // namespace lehr::kernels
