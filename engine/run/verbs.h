// The verbs that work on artefacts and checkpoints without a recipe: predict, evaluate, inspect,
// export.
#pragma once

#include <string>
#include <vector>

#include "engine/track/track.h"

namespace lehr::run {

// Writes `label, probability_<class>...` or `value...`, one row a sample, in the order of the
// input.
void predict(const std::string& artefact, const std::vector<std::string>& input,
             const std::string& output, track::Terminal& terminal);
// Loss-free metrics of an artefact on labelled data (images then labels for IDX; one CSV for
// tables).
void evaluate_artefact(const std::string& artefact, const std::vector<std::string>& data, bool json,
                       track::Terminal& terminal);
// What a checkpoint, a run or an artefact holds.
std::string inspect(const std::string& path, bool json);

}  // namespace lehr::run
