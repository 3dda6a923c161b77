// The ops for C++ callers, and what their CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/rope/rope.h"

namespace lehr::kernels {

// lehr::rope: qkv [B, T, (heads + 2 kv_heads) * head_dim] of float32, bfloat16 or float16, a row
// being q | k | v; cos_sin float32 [T, head_dim], cos in the first half of a row and sin in the
// second. Returns a tensor with q and k turned and v as it was; differentiable once in qkv. The
// backward turns back in the gradient's own memory where nobody else can see it.
at::Tensor rope(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                int64_t head_dim);

// lehr::rope_: the same in qkv's memory, which must be contiguous; `inverse` turns back. Not
// differentiable: refused where qkv needs a gradient.
at::Tensor& rope_(at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                  int64_t head_dim, bool inverse = false);

// The checked arguments of one call; the tensors own what `args` points to.
struct RopeCall {
  at::Tensor qkv, cos_sin;  // contiguous
  at::Tensor output;        // allocated, or qkv itself
  Rope args;
};
RopeCall prepare_rope(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads,
                      int64_t kv_heads, int64_t head_dim, bool inverse, bool in_place);

}  // namespace lehr::kernels
