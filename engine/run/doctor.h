// What this build is, what this machine offers it, and what is missing with the command that adds
// it.
#pragma once

#include <string>

#include "engine/base/error.h"

namespace lehr::run {

struct Diagnosis {
  std::string text;  // lines for a person, or one JSON object
  Code code = Code::kOk;
};

// The report of `lehr doctor`. Must be the first thing in its process that touches LibTorch: it
// loads the CUDA half, where there is one, to ask its versions. Under a launcher of several ranks
// the lead reports on its own machine and on the ranks, waiting up to `timeout_s` for each meeting;
// the others have no text. kRanks when there is a problem with the ranks.
Diagnosis doctor(bool json, double timeout_s);

}  // namespace lehr::run
