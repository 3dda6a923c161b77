// What this build is, what this machine offers it, and what is missing with the command that adds
// it.
#pragma once

#include <string>

namespace lehr::run {

// The report of `lehr doctor`, as lines for a person or as one JSON object. Must be the first thing
// in its process that touches LibTorch: it loads the CUDA half, where there is one, to ask its
// versions.
std::string doctor(bool json);

}  // namespace lehr::run
