// Stopping at a step boundary: SIGTERM, SIGUSR1 (a cluster's notice before the time limit) and
// SIGINT are remembered; a second SIGINT leaves at once.
#pragma once

namespace lehr::run {

void install_stop_signals();
// Name of the signal that asked to stop ("SIGTERM"), or nullptr.
const char* stop_requested();
int stop_signal();  // its number, or 0

}  // namespace lehr::run
