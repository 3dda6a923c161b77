// A recipe with everything it extends and the overrides of the command line, laid on one another.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/recipe/tree.h"

namespace lehr::recipe {

struct Layers {
  NodePtr root;           // a mapping without `extends`; nullptr when nothing could be read
  SourcePtr main;         // the recipe itself
  bool complete = false;  // false: a file is missing from it, so absent fields say nothing
  bool stored = false;    // its values are of Lehr itself, perhaps of another release
};

// `extends` is relative to the file it stands in and stays inside the folder of `path`.
Layers read_layers(const std::string& path, const std::vector<std::string>& overrides,
                   Mistakes& mistakes);
// The same from text, which may not extend anything; `folder` is where its relative paths start.
// `adapt`: what is done to the text's tree before the overrides are laid on it.
Layers parse_layers(const std::string& text, const std::string& origin, const std::string& folder,
                    const std::vector<std::string>& overrides, Mistakes& mistakes,
                    const std::function<NodePtr(NodePtr)>& adapt = nullptr);

}  // namespace lehr::recipe
