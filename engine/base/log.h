// Where messages go: `engine/main.cpp` decides (terminal, log file); rooms only say.
#pragma once

#include <string>

namespace lehr {

void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);
// Adds `path` as a second sink (appended, flushed on every line); empty closes it. A file that
// cannot be written is said once on the terminal, and tried again at every line.
void log_to_file(const std::string& path);
// Sends everything for the terminal through `print` instead of stderr (the progress line needs it).
void log_through(void (*print)(const std::string& line));

}  // namespace lehr
