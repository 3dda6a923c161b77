// The operators that an artefact may hold: they compute on their arguments and nothing else. No
// files, no processes, no randomness, no raw storage, no custom libraries.
#pragma once

#include <set>
#include <string>

namespace lehr::artefact {

const std::set<std::string>& allowed_aten();  // without "aten::"
const std::set<std::string>& allowed_prim();  // without "prim::"

}  // namespace lehr::artefact
