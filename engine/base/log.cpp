#include "engine/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <iostream>
#include <mutex>
#include <utility>
#include <vector>

namespace lehr {
namespace {

// Never destroyed: a thread that is left behind may still say something.
std::timed_mutex& mutex = *new std::timed_mutex;
std::string& path = *new std::string;
std::shared_ptr<spdlog::logger>& file = *new std::shared_ptr<spdlog::logger>;
std::string& trouble = *new std::string;  // with the file
// What was said while there was no file yet: it begins with that.
constexpr size_t kMostEarly = 1000;
auto& early = *new std::vector<std::pair<spdlog::level::level_enum, std::string>>;
void (*printer)(const std::string&) = nullptr;

// How long one that has to say something waits for one who stands still in the file.
constexpr auto kPatience = std::chrono::seconds(1);

void print(const std::string& line, bool alone = true) {
  if (printer && alone)
    printer(line);
  else
    std::cerr << line << std::endl;
}

void open_file() {
  try {
    file = std::make_shared<spdlog::logger>(
        "lehr", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
    file->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
    file->flush_on(spdlog::level::trace);
    file->set_error_handler([](const std::string& what) { trouble = what; });
    for (const auto& [level, message] : std::exchange(early, {})) file->log(level, message);
  } catch (const spdlog::spdlog_ex& e) {
    trouble = e.what();
  }
}

void say(spdlog::level::level_enum level, const char* prefix, const std::string& message) {
  const std::unique_lock lock(mutex, kPatience);
  if (!lock) return print(prefix + message, /*alone=*/false);
  const std::string before = std::exchange(trouble, "");
  if (!path.empty() && !file) open_file();
  if (file)
    file->log(level, message);
  else if (early.size() < kMostEarly)
    early.emplace_back(level, message);
  print(prefix + message);
  if (!trouble.empty() && trouble != before)
    print("warning: the log file cannot be written: " + trouble);
}

}  // namespace

void log_info(const std::string& message) { say(spdlog::level::info, "", message); }
void log_warning(const std::string& message) { say(spdlog::level::warn, "warning: ", message); }
void log_error(const std::string& message) { say(spdlog::level::err, "error: ", message); }

void log_to_file(const std::string& name) {
  std::lock_guard lock(mutex);
  file.reset();
  path = name;
  trouble.clear();
  if (!path.empty()) open_file();
  if (!trouble.empty()) print("warning: the log file cannot be written: " + trouble);
}

void log_through(void (*print)(const std::string&)) {
  std::lock_guard lock(mutex);
  printer = print;
}

}  // namespace lehr
