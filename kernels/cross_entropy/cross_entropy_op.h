// The loss of a language model for C++ callers, from logits or straight from the last hidden state,
// and what the op's CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cross_entropy/cross_entropy.h"

namespace lehr::kernels {

struct CrossEntropyOptions {
  double label_smoothing = 0;  // as in at::cross_entropy_loss
  double z_loss = 0;           // times the square of log sum exp is added to a token's loss
  int64_t vocabulary = 0;  // columns that are tokens, the rest being padding; 0: all of them are
};

// Sum of the loss over the tokens that count (target not -100): 0-d float32, differentiable once.
// `logits` [..., V] of float32, bfloat16 or float16, `targets` int64 [...]; 0 for no tokens.
//
// Where a gradient will be wanted it is made here, in the place of the logits: THE LOGITS ARE
// CONSUMED, unless they are a leaf, a view of one, or not contiguous, when a copy is. Their version
// counter is raised, so that autograd refuses a graph that still needs them. Without gradients
// (grad mode off, or logits that require none) they are only read. The backward multiplies by the
// incoming gradient, in place too, hence once: retain_graph does not bring a second. On the CPU a
// target outside [0, vocabulary) is an error; on CUDA it makes the loss and its row of the gradient
// NaN.
at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets,
                             const CrossEntropyOptions& options = {});

// cross_entropy_sum(hidden @ weight^T, targets) without ever holding more logits than `chunk_rows`
// rows of them. `hidden` [..., D], `weight` [V, D] of hidden's dtype or float32; the logits are of
// hidden's dtype, whatever autocast says, and weight is converted once a call. The gradients are
// made chunk by chunk in the forward: weight's is summed in weight's dtype. The backward multiplies
// by the incoming gradient, once. chunk_rows 0: cross_entropy_chunk_rows.
at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden, const at::Tensor& weight,
                                    const at::Tensor& targets,
                                    const CrossEntropyOptions& options = {},
                                    int64_t chunk_rows = 0);

// Rows of logits [., V] that are held at a time for a weight [V, D]: at least 1.
int64_t cross_entropy_chunk_rows(int64_t vocabulary, int64_t width, Float type, bool on_cpu);

// lehr::cross_entropy_ through the dispatcher, in place: writes losses (float32, one a row) and, if
// `gradient`, overwrites contiguous `logits` by the gradient of `scale` x their sum. No autograd.
void cross_entropy_(at::Tensor logits, const at::Tensor& targets, at::Tensor losses, double scale,
                    const CrossEntropyOptions& options, bool gradient);

// Checked arguments of one call of lehr::cross_entropy_.
CrossEntropy prepare_cross_entropy(const at::Tensor& logits, const at::Tensor& targets,
                                   const at::Tensor& losses, double scale, double label_smoothing,
                                   double z_loss, int64_t vocabulary, bool gradient);

}  // namespace lehr::kernels
