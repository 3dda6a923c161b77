// The shipped recipes: found beside the program (installed) or in the checkout.
#pragma once

#include <string>

namespace lehr::run {

std::string list_recipes();  // name and the first comment line of each
// `output`: as in write_output(). Throws Error{kUsage} for an unknown name, or when it exists.
void copy_recipe(const std::string& name, const std::string& output);

}  // namespace lehr::run
