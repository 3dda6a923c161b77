// Compares a traced model with the live one, bit for bit, and finds the layer where they part. The
// trace silently holds sizes, branches and constants of the one run that it saw, so nothing is
// published that was not compared at other batch sizes.
#pragma once

#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/export/trace.h"
#include "models/model.h"

namespace lehr::artefact {

inline constexpr int64_t kVerifiedBatches[] = {1, 3, 17};
// Texts are compared at as many batch sizes, each with another length: up to the longest that the
// model takes, as far as the logits stay below this many numbers.
inline constexpr int64_t kVerifiedLogits = int64_t{1} << 26;
std::vector<int64_t> verified_lengths(int64_t longest, int64_t vocabulary);

// Samples that stand for the data: spread over the test split, else validation, else training;
// repeated when there are fewer than `count`.
struct Drawn {
  data::RawBatch raw;
  at::Tensor inputs;               // what the model sees of them, without augmentation
  std::vector<std::string> names;  // "sample 12 of the test split"
};
Drawn draw(const data::Dataset& dataset, int64_t count);
// The same for text, `length` tokens of each (repeated where a window is shorter).
Drawn draw_text(const data::Dataset& dataset, int64_t count, int64_t length);

// The model's outputs in eval, without gradients.
at::Tensor evaluate(models::Model& model, const at::Tensor& inputs);

// Empty when `script` gives the live model's bits for `inputs`; else where they first differ, as
// the end of a sentence: "in layer `conv2` (aten::addmm)". Looks at every operator of both on a
// difference.
std::string first_difference(const Script& script, models::Model& live, const at::Tensor& inputs);

// Throws Error{kNonFinite} naming a weight or batch statistic that is NaN or infinite; `where` is
// for the message.
void require_finite(const models::Model& model, const std::string& where);
// Weights, preprocessing, layers and answers at each of kVerifiedBatches (and lengths). Throws
// Error{kCheckpoint} naming the first that differs, and Error{kNonFinite} naming a sample with a
// finite input whose output is not: equal bits say nothing of those.
void verify(const Script& script, models::Model& live, const data::Dataset& dataset,
            const std::string& loss, const std::string& where);

}  // namespace lehr::artefact
