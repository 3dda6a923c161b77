#include "engine/track/trace.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <vector>

namespace lehr::track {

namespace {

struct Event {
  std::string name;
  int64_t begin_ns, end_ns;
  long thread;
};

std::mutex mutex;
std::vector<Event> events;

}  // namespace

std::atomic<bool> Trace::on_{false};

int64_t Trace::now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void Trace::start() {
  std::lock_guard lock(mutex);
  events.clear();
  on_ = true;
}

void Trace::record(const std::string& name, int64_t begin_ns, int64_t end_ns) {
  std::lock_guard lock(mutex);
  if (on_) events.push_back({name, begin_ns, end_ns, ::syscall(SYS_gettid)});
}

std::string Trace::stop(int64_t origin_ns) {
  std::lock_guard lock(mutex);
  on_ = false;
  std::string out;
  for (const Event& e : events) {
    const auto name =
        nlohmann::json(e.name).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    out += fmt::format(
        R"({}{{"ph":"X","cat":"phase","name":{},"pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f}}})",
        out.empty() ? "" : ",\n", name, ::getpid(), e.thread,
        static_cast<double>(e.begin_ns - origin_ns) / 1e3,
        static_cast<double>(e.end_ns - e.begin_ns) / 1e3);
  }
  events.clear();
  return out;
}

std::string Trace::document(const std::string& events) {
  return "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" + events + "\n]}\n";
}

}  // namespace lehr::track
