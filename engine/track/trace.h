// Named phases of the loop (load, step, evaluate, save) as Chrome trace events, recorded only while
// a profile runs. Off, a span is one relaxed load.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace lehr::track {

class Trace {
 public:
  // From its making to its end, on this thread. `name` lives as long as the span.
  class Span {
   public:
    explicit Span(const char* name) : name_(on() ? name : nullptr) {
      if (name_) begin_ns_ = now_ns();
    }
    ~Span() {
      if (name_) record(name_, begin_ns_, now_ns());
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    const char* name_;
    int64_t begin_ns_ = 0;
  };
  [[nodiscard]] static Span span(const char* name) { return Span(name); }

  static bool on() { return on_.load(std::memory_order_relaxed); }
  static void start();  // forgets what was recorded before
  // The events of all threads since start(), as the comma-separated elements of a traceEvents
  // array; times are microseconds since `origin_ns` (Unix).
  static std::string stop(int64_t origin_ns);
  static void record(const std::string& name, int64_t begin_ns, int64_t end_ns);
  static int64_t now_ns();  // Unix
  // A whole trace file of such events.
  static std::string document(const std::string& events);

 private:
  static std::atomic<bool> on_;
};

}  // namespace lehr::track
