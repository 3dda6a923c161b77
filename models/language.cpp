// What every language model does with its hidden states.
#include <ATen/ATen.h>

#include "models/model.h"

namespace lehr::models {

at::Tensor LanguageModel::forward(const at::Tensor& ids) {
  at::Tensor weight = head();  // [rows, D]
  if (weight.size(0) != vocabulary()) weight = weight.slice(0, 0, vocabulary());
  return at::linear(hidden({ids, {}, nullptr}), weight);  // [B, T, V]
}

}  // namespace lehr::models
