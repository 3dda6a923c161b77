// How the next token is drawn from logits: in C++ for live models, and as the TorchScript of an
// artefact's `generate`. Both compute the same numbers. A draw is a function of (seed, position of
// the token, row of the batch) alone, so the same seed gives the same text however it is cut.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace lehr::artefact {

struct Sampling {
  double temperature = 1;  // 0: the most probable token
  int64_t top_k = 0;       // only the k most probable; 0: all
  double top_p = 1;        // only the most probable that together reach p; 1: all
  int64_t seed = 0;
};
// Throws Error{kUsage} for a temperature or top_k below 0, or a top_p outside (0, 1].
void check(const Sampling& sampling);

// Uniform in [0, 1), float64 [rows, 1], for the token at `position`.
at::Tensor draws(int64_t seed, int64_t position, int64_t rows);
// What to add to logits [N, vocabulary] so that tokens alone are drawn: float32 [vocabulary], 0 and
// -infinity; undefined where every number is a token. `tokenizer`: its json(); "": not known.
at::Tensor token_mask(const std::string& tokenizer, int64_t vocabulary);
// logits [N, V], draw [N, 1] -> ids [N, 1].
at::Tensor sample(const at::Tensor& logits, const at::Tensor& draw, const Sampling& sampling);

// The methods lehr_draws, lehr_sample and generate; `masked`: with token_mask() as the attribute
// token_mask.
std::string generate_source(bool masked);

}  // namespace lehr::artefact
