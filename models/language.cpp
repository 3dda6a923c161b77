// What every language model does with its hidden states.
#include <ATen/ATen.h>

#include "models/model.h"

namespace lehr::models {

at::Tensor LanguageModel::logits(const Input& input) {
  at::Tensor weight = head();  // [rows, D]
  if (weight.size(0) != vocabulary()) weight = weight.slice(0, 0, vocabulary());
  return at::linear(hidden(input), weight);
}

}  // namespace lehr::models
