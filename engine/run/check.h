// `lehr check`: everything that can be known about a recipe without training it.
#pragma once

#include <string>

#include "engine/base/fields.h"
#include "engine/recipe/recipe.h"
#include "engine/track/track.h"

namespace lehr::run {

struct CheckReport {
  std::string text;  // for people
  std::string json;  // for machines
};
// Opens the data, runs shapes through the model on the meta device, counts parameters, FLOPs,
// memory and checkpoint bytes, and traces for export. `ranks`: how many will share a step; memory
// is of one. Throws Error with what is wrong.
CheckReport check(const recipe::Recipe& recipe, int64_t ranks = 1);

// `lehr check --all`: loads every sample of every split, and logs each that does not load, with its
// file and the reason. `bad` counts those that a run of this recipe would end at.
struct SamplesReport {
  std::string text, json;
  int64_t bad = 0;
};
SamplesReport check_samples(const std::string& recipe, const StringList& overrides,
                            track::Terminal& terminal);

}  // namespace lehr::run
