// The end of a process that does not come through main: decided by a thread that watches, when the
// main one cannot be asked.
#pragma once

#include <string>

#include "engine/base/error.h"

namespace lehr {

// Tells whoever launched this process what ended it: `lehr launch`, or torchrun in its form
// (TORCHELASTIC_ERROR_FILE).
void tell_launcher(const std::string& message);
// Waits for a checkpoint that is being written, for `patience_s` at most, removes other files that
// are half-written, and ends with `code`. What it is for the caller has said.
[[noreturn]] void leave(Code code, double patience_s = 0);

}  // namespace lehr
