#include <fmt/format.h>

#include <exception>

#include "engine/base/log.h"
#include "engine/track/track.h"

namespace lehr::track {
namespace {

constexpr size_t kHeld = 100000;  // rows: some tens of megabytes

}  // namespace

void Trackers::deliver(Tracker& t) {
  try {
    if (!t.sink) t.sink = t.open();
    for (; !t.waiting.empty(); t.waiting.pop_front()) t.sink->write(t.waiting.front());
    t.sink->flush();
    if (t.failed) log_info("what could not be tracked before is written");
    t.failed = false;
    t.said.clear();
  } catch (const std::exception& e) {
    t.failed = true;
    if (t.said != e.what())
      log_warning(
          fmt::format("{}\n  training goes on; its rows are held and tried again", e.what()));
    t.said = e.what();
  }
}

void Trackers::add(Open open) {
  all_.emplace_back().open = std::move(open);
  deliver(all_.back());
}

void Trackers::write(const Row& row) {
  for (Tracker& t : all_) {
    t.waiting.push_back(row);
    if (t.waiting.size() > kHeld) t.waiting.pop_front(), ++t.lost;
    if (!t.failed) deliver(t);
  }
}

void Trackers::flush() {
  for (Tracker& t : all_) deliver(t);
}

void Trackers::finish() {
  flush();
  for (const Tracker& t : all_)
    if (const int64_t lost = t.lost + static_cast<int64_t>(t.waiting.size()); lost > 0)
      log_warning(fmt::format("{} row(s) are lost: {}", lost, t.said));
}

}  // namespace lehr::track
