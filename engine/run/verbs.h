// The verbs that work on artefacts and checkpoints without a recipe: predict, evaluate, inspect.
#pragma once

#include <string>
#include <vector>

#include "engine/track/track.h"

namespace lehr::run {

// Writes `label, probability_<class>...` or `value...`, one row a sample, in the order of the
// input; of picture files also `file`, the last column. `bad_samples`: data.bad_samples, "" as the
// artefact's recipe says; the row of a picture that is left out holds its file alone.
void predict(const std::string& artefact, const std::vector<std::string>& files,
             const std::string& output, const std::string& bad_samples, track::Terminal& terminal);
// Loss-free metrics of an artefact on labelled data (images then labels for IDX; one CSV for
// tables).
void evaluate_artefact(const std::string& artefact, const std::vector<std::string>& data, bool json,
                       const std::string& bad_samples, track::Terminal& terminal);
// What a checkpoint, a run or an artefact holds.
std::string inspect(const std::string& path, bool json);

}  // namespace lehr::run
