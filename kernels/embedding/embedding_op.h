// Token embeddings for C++ callers, and what the op's CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/embedding/embedding.h"

namespace lehr::kernels {

// weight[ids]: `weight` [V, D] of float32, bfloat16 or float16, `ids` int64 [...] -> [..., D].
// The gradient is dense, [V, D], summed in float32 in a fixed order: the same bits on any number of
// threads, and on a GPU. On the CPU an id outside [0, V) is an error; on CUDA its row is NaN, and
// its gradient is lost.
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids);

// weight[ids] + positions[0..T) in one pass: `ids` [..., T], `positions` [at least T, D] of
// weight's dtype. Rows of positions beyond T have a gradient of zero.
at::Tensor embedding_add(const at::Tensor& weight, const at::Tensor& positions,
                         const at::Tensor& ids);

// The checked arguments of one call of lehr::embedding; the tensors own what `args` points to.
struct EmbeddingCall {
  at::Tensor weight, positions, ids, output;
  Embedding args;
};
EmbeddingCall prepare_embedding(const at::Tensor& weight,
                                const std::optional<at::Tensor>& positions, const at::Tensor& ids);

// Of lehr::embedding_backward: gradient [..., T, D], ids [..., T] or none (by position); the result
// [rows, D], zeroed. sorted_ids and order are for the device's half to fill in.
struct EmbeddingGradientCall {
  at::Tensor gradient, ids, result;
  EmbeddingGradient args;
};
EmbeddingGradientCall prepare_embedding_gradient(const at::Tensor& gradient,
                                                 const std::optional<at::Tensor>& ids,
                                                 int64_t rows);

}  // namespace lehr::kernels
