#include "engine/base/leave.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/base/files.h"
#include "engine/base/pulse.h"

namespace lehr {

void tell_launcher(const std::string& message) {
  if (pulse_is_shared()) {
    size_t size = std::min(message.size(), Pulse::kCause - 1);
    // no code point is cut
    while (size < message.size() && size > 0 && (message[size] & 0xc0) == 0x80) --size;
    std::memcpy(pulse().cause, message.data(), size);
    pulse().cause[size] = '\0';
  }
  if (const char* file = std::getenv("TORCHELASTIC_ERROR_FILE"))
    std::ofstream(file) << nlohmann::json{{"message",
                                           {{"message", message},
                                            {"extraInfo",
                                             {{"timestamp", std::to_string(std::time(nullptr))}}}}}}
                               .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void leave(Code code, double patience_s) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(patience_s);
  while (pulse().saves > 0 && Clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  remove_temporaries();
  if (::isatty(2) && ::write(2, "\n", 1) < 0) {  // below the progress line; the terminal has gone
  }
  std::_Exit(static_cast<int>(code));
}

}  // namespace lehr
