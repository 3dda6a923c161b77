// Recipes that another release of Lehr stored, as this one would have written them.
#pragma once

#include "engine/base/fields.h"
#include "engine/recipe/tree.h"

namespace lehr::recipe {

// `root` with the fields of Field::was under their new names and without those of Section::gone,
// which are named in `gone`.
NodePtr adapt_stored(const NodePtr& root, const std::vector<Section>& sections, StringList& gone);

}  // namespace lehr::recipe
