// RoPE on CUDA: device guard, current stream, error to exception.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/rope/rope_op.h"

namespace lehr::kernels {
namespace {

at::Tensor turn_on_cuda(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                        int64_t kv_heads, int64_t head_dim, bool inverse) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  const RopeCall call = prepare_rope(qkv, cos_sin, heads, kv_heads, head_dim, inverse, false);
  C10_CUDA_CHECK(rope_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.output;
}

at::Tensor& turn_in_place_on_cuda(at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                                  int64_t kv_heads, int64_t head_dim, bool inverse) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  const RopeCall call = prepare_rope(qkv, cos_sin, heads, kv_heads, head_dim, inverse, true);
  C10_CUDA_CHECK(rope_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return qkv;
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("rope_turn", turn_on_cuda);
  m.impl("rope_", turn_in_place_on_cuda);
}

}  // namespace lehr::kernels
