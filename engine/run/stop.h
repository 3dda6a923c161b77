// Stopping at a step boundary: SIGTERM and SIGINT are remembered; a second SIGINT leaves at once.
#pragma once

namespace lehr::run {

void install_stop_signals();
// Name of the signal that asked to stop ("SIGTERM"), or nullptr.
const char* stop_requested();

}  // namespace lehr::run
