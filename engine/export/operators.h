// The operators that an artefact may hold: they compute on their arguments and nothing else. No
// files, no processes, no randomness, no raw storage, no custom libraries.
#pragma once

#include <string>

namespace lehr::artefact {

bool aten_allowed(const std::string& name);  // without "aten::"
bool prim_allowed(const std::string& name);  // without "prim::"

}  // namespace lehr::artefact
