// A checked recipe as YAML that reads back as the same recipe.
#pragma once

#include <string>
#include <vector>

#include "engine/recipe/check.h"

namespace lehr::recipe {

// Every active field, in the order of declaration; `values` counts keys and values.
std::string print(const std::vector<Section>& sections, const Slots& slots, int& values);

}  // namespace lehr::recipe
