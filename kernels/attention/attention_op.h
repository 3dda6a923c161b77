// The op for C++ callers.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "kernels/attention/attention.h"

namespace lehr::kernels {

// lehr::causal_attention: qkv [B, T, (heads + 2 kv_heads) head_size] of float32, bfloat16 or
// float16 on the CPU, a row being q | k | v -> [B, T, heads * head_size]; differentiable once. The
// same bits for any number of threads.
at::Tensor causal_attention(const at::Tensor& qkv, int64_t heads, int64_t kv_heads,
                            int64_t head_size);

}  // namespace lehr::kernels
