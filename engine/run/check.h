// `lehr check`: everything that can be known about a recipe without training it.
#pragma once

#include <string>

#include "engine/recipe/recipe.h"

namespace lehr::run {

struct CheckReport {
  std::string text;  // for people
  std::string json;  // for machines
};
// Opens the data, runs shapes through the model on the meta device, counts parameters, FLOPs,
// memory and checkpoint bytes, and traces for export. `ranks`: how many will share a step; memory
// is of one. Throws Error with what is wrong.
CheckReport check(const recipe::Recipe& recipe, int64_t ranks = 1);

}  // namespace lehr::run
