#include "engine/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <iostream>
#include <mutex>

namespace lehr {
namespace {

std::mutex mutex;
std::shared_ptr<spdlog::logger> file;
void (*printer)(const std::string&) = nullptr;

void say(spdlog::level::level_enum level, const char* prefix, const std::string& message) {
  std::lock_guard lock(mutex);
  if (file) file->log(level, message);
  std::string line = prefix + message;
  if (printer)
    printer(line);
  else
    std::cerr << line << std::endl;
}

}  // namespace

void log_info(const std::string& message) { say(spdlog::level::info, "", message); }
void log_warning(const std::string& message) { say(spdlog::level::warn, "warning: ", message); }
void log_error(const std::string& message) { say(spdlog::level::err, "error: ", message); }

void log_to_file(const std::string& path) {
  std::lock_guard lock(mutex);
  file.reset();
  if (path.empty()) return;
  auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
  file = std::make_shared<spdlog::logger>("lehr", sink);
  file->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
  file->flush_on(spdlog::level::trace);
}

void log_through(void (*print)(const std::string&)) {
  std::lock_guard lock(mutex);
  printer = print;
}

}  // namespace lehr
