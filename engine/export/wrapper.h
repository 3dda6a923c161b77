// What an artefact does around the traced model: from raw values to final answers, as TorchScript
// source that is generated from the fitted preprocessing and the loss.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/export/trace.h"

namespace lehr::artefact {

struct Answer;

// How outputs become answers under `loss`; a language model answers with its logits. Throws
// Error{kInternal} for a loss that has no entry.
const Answer& answer_of(const std::string& loss, bool is_text = false);

struct Answer {
  const char* loss;
  bool is_class;                                    // answers (label, probability)
  const char* source;                               // postprocess, in TorchScript
  at::Tensor (*scores)(const at::Tensor& outputs);  // the same in C++: probability or value
};

// Of a language model: how many tokens one forward takes, how many ids it knows, and what is added
// to its logits so that tokens alone are drawn (undefined: nothing; see sampling.h).
struct LanguageFacts {
  int64_t longest = 0, vocabulary = 0;
  at::Tensor token_mask;
};
// Checks, preprocessing, answers, and the attributes that say what they are.
Surroundings surroundings(const data::DataInfo& info, const data::Preprocessing& preprocessing,
                          const std::string& loss, const LanguageFacts& language = {});
// What the live model answers for its `outputs`: the tensors of forward's tuple.
std::vector<at::Tensor> answers(const std::string& loss, const at::Tensor& outputs,
                                bool is_text = false);
// Names of forward's inputs and outputs, in order.
std::vector<std::string> input_names(const data::DataInfo& info);
std::vector<std::string> output_names(const std::string& loss, bool is_text = false);

}  // namespace lehr::artefact
