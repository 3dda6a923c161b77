// What fields of a recipe say against one another, found in the recipe alone: `check` and `train`
// ask here before any data is opened, so that nothing of it is left for the end of a training.
#pragma once

#include <string>

#include "engine/recipe/recipe.h"

namespace lehr::run {

// One Error{kRecipe} with a line for each contradiction, of a training on `ranks` ranks.
void check_contradictions(const recipe::Recipe& recipe, int64_t ranks);

// Throws where fields want evaluations of a validation split, and the data hold none.
void check_needs_no_validation(const recipe::Recipe& recipe);

}  // namespace lehr::run
