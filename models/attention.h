// Causal self-attention on packed queries, keys and values, through ATen's
// scaled_dot_product_attention, which picks cuDNN, flash or its own CPU kernel.
#pragma once

#include "models/model.h"

namespace lehr::models {

struct AttentionShape {
  int64_t heads = 1, kv_heads = 1, head_size = 1;
  int64_t packed() const { return (heads + 2 * kv_heads) * head_size; }
};

// qkv [B, T, packed()], heads of queries, then keys, then values -> [B, T, heads * head_size]. Each
// token sees itself and those before it; with `mask` (bool [B, 1, T, T]) only where that is true.
// With a cache, `layer` is its entry: the new keys and values are appended, and attended to.
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape, const at::Tensor& mask,
                     KeyValueCache* cache, size_t layer);

// What ATen will run for q, k, v [B, heads, T, head_size]: "flash", "cuDNN", "memory-efficient", or
// "math", which holds every score. attention() warns once, naming the shapes, when a GPU gets the
// last.
std::string attention_backend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& mask, bool is_causal);

// Who may see whom, bool [B, 1, T, T]: those before, of the same segment; undefined for undefined
// segments.
at::Tensor attention_mask(const at::Tensor& segments);

// Positions of ids [B, T], int64 [T], after `before` earlier ones; free of sizes, for traces.
at::Tensor positions_of(const at::Tensor& ids, int64_t before);

}  // namespace lehr::models
