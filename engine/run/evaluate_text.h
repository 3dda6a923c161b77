// `lehr evaluate` of a language model: the evaluation of its training on other files.
#pragma once

#include <string>
#include <vector>

#include "engine/track/track.h"

namespace lehr::run {

// Whether this artefact is of a language model, by its manifest, which is verified.
bool is_language_artefact(const std::string& path);
// The model that the artefact's weights and recipe make, on `files` as the test split: what the
// training's own test row says of the same files. All of the artefact is verified.
void evaluate_text(const std::string& path, const std::vector<std::string>& files, bool as_json,
                   track::Terminal& terminal);

}  // namespace lehr::run
