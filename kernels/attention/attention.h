// Causal self-attention (Vaswani et al. 2017) on the packed output of one linear layer, for the
// CPU: scores of a block of queries stay in the cache, and gradients are written packed, so nothing
// is split, transposed or joined. There is no CUDA half: cuDNN and flash attention, behind ATen's
// op, are at the machine's limit.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"

namespace lehr::kernels {

// qkv [batch, time, heads + 2 kv_heads, head_size]: heads of queries, then keys, then values; the
// query head h reads key head h / (heads / kv_heads), which kv_heads divides. Token t sees tokens
// 0..t. Scores are scaled by 1 / sqrt(head_size). All of them compute in float.
// Bytes moved: batch x time x (2 heads + 2 kv_heads) x head_size sizes of `type`; work:
// 2 batch x heads x time^2 x head_size multiply-adds' worth of FLOP, half of the full square.
struct Attention {
  const void* qkv;
  void* output;         // [batch, time, heads, head_size] of `type`
  float* log_sums;      // [batch, heads, time]: logarithm of each softmax's denominator
  int64_t batch, time;  // 0 does nothing
  int64_t heads, kv_heads, head_size;
  Float type;
};

// grad_qkv has qkv's shape. Nothing may overlap.
struct AttentionBackward {
  const void *grad, *qkv, *output;  // grad: as output
  const float* log_sums;
  void* grad_qkv;
  int64_t batch, time;
  int64_t heads, kv_heads, head_size;
  Float type;
};

// The oracles, in double.
void attention_cpu(const Attention& args);
void attention_backward_cpu(const AttentionBackward& args);

// What the op runs: tasks [begin, end) of batch x heads, or for the backward of batch x kv_heads.
void attention_cpu_simd(const Attention& args, int64_t begin, int64_t end);
void attention_backward_cpu_simd(const AttentionBackward& args, int64_t begin, int64_t end);

}  // namespace lehr::kernels
