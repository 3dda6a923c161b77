// The TensorBoard sink: one event file per invocation, older files without what came after the step
// that a resume restores.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/track/append_file.h"
#include "engine/track/event_file.h"
#include "engine/track/track.h"

namespace lehr::track {

namespace {

constexpr const char* kPrefix = "events.out.tfevents.";

// Cuts one file before its first event beyond `last_step`, and a torn end off. Only as much of it
// is read, from its end, as shows where that is.
void cut_file(const std::string& path, int64_t last_step) {
  AppendFile file(path, false);
  for (uint64_t window = kSearched;; window *= 2) {
    const uint64_t begin = file.size() - std::min(file.size(), window);
    const std::string text = file.read(begin, file.size() - begin);
    const size_t first = begin == 0 ? 0 : first_record(text);
    if (first == std::string::npos) continue;
    RecordReader reader(std::string_view(text).substr(first));
    uint64_t end = begin + first;
    bool any = false, beyond = false;
    while (!beyond && reader.next()) {
      // the version event has step 0 and must stay even when everything is cut
      const bool is_version = end == 0;
      beyond = !is_version && step_of_event(reader.data()) > last_step;
      if (beyond) break;
      end += reader.record().size();
      any = true;
    }
    if (!any && begin > 0) continue;
    if (reader.damaged())
      log_warning(path +
                  ": dropped records from the first one that is cut short or does not verify");
    if (end < file.size()) file.cut(end);
    return;
  }
}

std::string host_name() {
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0 || !host[0]) return "localhost";
  std::string name = host;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

// TensorBoard groups tags by what stands before the first slash.
std::string tag_of(std::string name) {
  const size_t dot = name.find('.');
  if (dot != std::string::npos) name[dot] = '/';
  return name;
}

// TensorBoard's scalars are floats; what is beyond them is infinite there.
float float_of(double value) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (std::abs(value) > kLargest) return value > 0 ? kInfinity : -kInfinity;
  return static_cast<float>(value);
}

class TensorBoard final : public Sink {
 public:
  TensorBoard(const std::string& path, double time, int64_t resume_step) : file_(path, true) {
    // a reader purges what has the START's step or a later one; the first START of all purges
    // nothing
    try {
      file_.append(event_record(version_event(time)) +
                   event_record(session_start_event(time, resume_step + 1)));
    } catch (const std::exception&) {
      ::unlink(path.c_str());  // no event file begins otherwise
      throw;
    }
  }

  void write(const Row& row) final {
    ScalarEvent event(row.time, row.step);
    for (const auto& [name, value] : row.values) event.add(tag_of(name), float_of(value));
    file_.append(event_record(event.event()));
  }

  void flush() final {}  // every event is in the kernel already

 private:
  AppendFile file_;
};

}  // namespace

std::unique_ptr<Sink> open_tensorboard(const std::string& folder, int64_t resume_step) {
  make_folders(folder);
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  int64_t seconds = static_cast<int64_t>(now);
  for (const std::string& name : list_folder(folder)) {
    if (!name.starts_with(kPrefix)) continue;
    cut_file(join_path(folder, name), resume_step);
    // readers take files in the order of their names: ours comes after all others
    seconds = std::max<int64_t>(seconds, std::atoll(name.c_str() + std::strlen(kPrefix)) + 1);
  }
  const std::string name =
      fmt::format("{}{:010d}.{}.{}.0", kPrefix, seconds, host_name(), ::getpid());
  return std::make_unique<TensorBoard>(join_path(folder, name), now, resume_step);
}

}  // namespace lehr::track
