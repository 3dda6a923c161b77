// What training makes small, as two numbers: the sum over samples and the weight that it is divided
// by. They are kept apart because the divisor belongs to the whole global batch, not to one
// micro-batch; sum / weight over all of them is what PyTorch calls reduction="mean".
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>

#include "engine/base/batch.h"
#include "engine/step/fields.h"
#include "models/model.h"

namespace lehr::step {

class Loss {
 public:
  virtual ~Loss() = default;
  // Sum over the batch, 0-d float32, differentiable; outputs of any dtype are taken to float32
  // first. Throws Error{kInternal} when outputs and targets do not have the shapes of this loss.
  at::Tensor sum(const at::Tensor& outputs, const at::Tensor& targets) const;
  // Of each sample, [B].
  at::Tensor each(const at::Tensor& outputs, const at::Tensor& targets) const;
  // Sum over the tokens whose target counts, from hidden states [B, T, D] and head [rows, D] of a
  // language model (see models::LanguageModel), targets [B, T]. Losses of other things throw
  // Error{kRecipe}.
  virtual at::Tensor token_sum(const at::Tensor& hidden, const at::Tensor& head, int64_t vocabulary,
                               const at::Tensor& targets) const;
  // What the sums are divided by: samples, values, the class weights of the targets, or tokens that
  // count.
  virtual double weight(const at::Tensor& targets) const;
  // Predictions for the metrics: see to_scores in step.h.
  virtual at::Tensor scores(const at::Tensor& outputs) const;
  // Outputs per sample for data of `classes` or, if that is 0, `values` targets. Throws
  // Error{kRecipe} when the loss does not fit the target.
  virtual int64_t output_count(int64_t classes, int64_t values) const = 0;

 protected:
  // `reduction` is at::Reduction::Sum, or None for [B] or [B, K].
  virtual at::Tensor apply(const at::Tensor& outputs, const at::Tensor& targets,
                           int64_t reduction) const = 0;
};

// Throws Error{kRecipe} for an unknown name or weights that are none.
std::unique_ptr<Loss> make_loss(const LossFields& fields);

// The loss of a batch, forward included, as sum() and token_sum() give it. `outputs` gets the
// model's outputs, but for a language model, whose logits are never all held.
at::Tensor forward_sum(models::Model& model, const Loss& loss, const Batch& batch,
                       std::optional<at::ScalarType> precision, at::Tensor* outputs = nullptr);

}  // namespace lehr::step
