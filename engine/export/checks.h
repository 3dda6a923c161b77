// What an artefact's forward asks of its inputs before it answers, as TorchScript source: a server
// in stock PyTorch has nothing else to ask.
#pragma once

#include <string>

#include "engine/data/dataset.h"

namespace lehr::artefact {

// Defines on `self`
//   lehr_check(images) | lehr_check(numbers, strings) | lehr_check(tokens)
// which raises ValueError and says in a line what is wanted, what came, and often the remedy; of
// tables also lehr_check_features(numbers, x), x being the preprocessed row, for infinities. For
// text `longest` is how many tokens one forward takes, `vocabulary` how many ids the model knows.
// Values cost one pass; on a GPU the answer to them is waited for.
std::string check_source(const data::DataInfo& info, int64_t longest, int64_t vocabulary);

}  // namespace lehr::artefact
