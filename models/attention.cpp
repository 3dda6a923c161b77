#include "models/attention.h"

#include <ATen/ATen.h>
#include <ATen/SDPBackend.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <mutex>

#include "engine/base/log.h"
#include "kernels/attention/attention_op.h"
#include "models/ops.h"

namespace lehr::models {

static at::Tensor causal_attention(const at::Tensor& qkv, const AttentionShape& shape) {
  at::Tensor y = kernels::causal_attention(qkv, shape.heads, shape.kv_heads, shape.head_size);
  compare_kernel("causal_attention", y, [&] { return attention(qkv, shape, {}, nullptr, 0); });
  return y;
}

std::string attention_backend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& mask, bool is_causal) {
  const auto backend = static_cast<at::SDPBackend>(at::_fused_sdp_choice(
      q, k, v, mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, /*dropout_p=*/0,
      is_causal, /*scale=*/std::nullopt, /*enable_gqa=*/q.size(1) != k.size(1)));
  switch (backend) {
    case at::SDPBackend::flash_attention:
      return "flash";
    case at::SDPBackend::cudnn_attention:
      return "cuDNN";
    case at::SDPBackend::efficient_attention:
      return "memory-efficient";
    default:
      return "math";
  }
}

static void expect_fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const at::Tensor& mask, bool is_causal) {
  static std::once_flag once;
  if (!q.is_cuda() || attention_backend(q, k, v, mask, is_causal) != "math") return;
  std::call_once(once, [&] {
    log_warning(fmt::format(
        "attention of {} on {}, {}, has no fused kernel on this GPU and holds every score; bf16 "
        "or fp16 and a head of at most 256 have one",
        fmt::join(q.sizes(), " x "), fmt::join(k.sizes(), " x "), at::toString(q.scalar_type())));
  });
}

at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape, const at::Tensor& mask,
                     KeyValueCache* cache, size_t layer) {
  if (kernels_in_use() != Kernels::kAten && qkv.is_cpu() && !mask.defined() && !cache)
    return causal_attention(qkv, shape);
  const at::Tensor rows =
      qkv.unflatten(-1, {shape.heads + 2 * shape.kv_heads, shape.head_size});  // [B, T, H, N]
  const auto parts = rows.split_with_sizes({shape.heads, shape.kv_heads, shape.kv_heads}, 2);
  const at::Tensor q = parts[0].transpose(1, 2);  // [B, H, T, N]
  at::Tensor k = parts[1].transpose(1, 2), v = parts[2].transpose(1, 2);
  bool is_causal = !mask.defined();
  if (cache) {
    if (cache->keys.size() <= layer) {
      cache->keys.resize(layer + 1);
      cache->values.resize(layer + 1);
    }
    at::Tensor& keys = cache->keys[layer];
    at::Tensor& values = cache->values[layer];
    if (keys.defined()) {
      k = at::cat({keys, k}, 2), v = at::cat({values, v}, 2);
      is_causal = false;  // one new token sees everything
    }
    keys = k, values = v;
  }
  expect_fused(q, k, v, mask, is_causal);
  const at::Tensor out = at::scaled_dot_product_attention(
      q, k, v, mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, /*dropout_p=*/0,
      is_causal, /*scale=*/std::nullopt, /*enable_gqa=*/shape.heads != shape.kv_heads);
  return out.transpose(1, 2).flatten(2);
}

at::Tensor attention_mask(const at::Tensor& segments) {
  if (!segments.defined()) return {};
  const at::Tensor same = segments.unsqueeze(1) == segments.unsqueeze(2);  // [B, T, T]
  return same.tril().unsqueeze(1);
}

at::Tensor positions_of(const at::Tensor& ids, int64_t before) {
  const at::Tensor positions = at::ones_like(ids.select(0, 0)).cumsum(0) - 1;
  return before == 0 ? positions : positions + before;
}

}  // namespace lehr::models
