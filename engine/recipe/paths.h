// Paths of a recipe belong to the file in which they are written, not to the working directory.
#pragma once

#include <string>

#include "engine/recipe/scalars.h"

namespace lehr::recipe {

SourcePtr working_directory();

// Turns the texts of `node` (a path, or a list of paths) into `value`, which opens from the working
// directory, and `printed`, which says the same in a file in `folder`. Absolute paths stay as they
// are. `printed` never equals `default_value`, which would mean something else.
void place_paths(const Node& node, const std::string& folder, const Value& default_value,
                 Value& value, Value& printed);

}  // namespace lehr::recipe
