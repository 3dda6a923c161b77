#include "engine/dist/meeting.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "engine/base/log.h"

namespace lehr::dist {
namespace {

using Clock = std::chrono::steady_clock;

// for a verdict to reach the others before the store goes
constexpr auto kVerdict = Milliseconds(300);

std::vector<uint8_t> as_bytes(const std::vector<int>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(int));
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}
std::vector<int> as_ints(const std::vector<uint8_t>& bytes) {
  std::vector<int> values(bytes.size() / sizeof(int));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(int));
  return values;
}

class Arrivals {
 public:
  explicit Arrivals(const Meeting& meeting) : m_(meeting) {
    m_.store->append(m_.key + "here", as_bytes({m_.place.rank}));
  }
  const std::vector<int>& missing() {
    std::vector<int> here = as_ints(m_.store->get(m_.key + "here"));
    std::sort(here.begin(), here.end());
    missing_.clear();
    for (int rank = 0; rank < m_.place.size; ++rank)
      if (!std::binary_search(here.begin(), here.end(), rank)) missing_.push_back(rank);
    return missing_;
  }
  const std::vector<int>& last_missing() const { return missing_; }
  void say_who_is_missing() {
    log_warning(fmt::format("after {} s at {}, of {} ranks these have not come yet: {}",
                            m_.heartbeat.count() / 1000.0, m_.what, m_.place.size,
                            list_of(missing())));
  }

 private:
  const Meeting& m_;
  std::vector<int> missing_;
};

// The verdict begins with a byte, since a key without a value is not told from none.
std::vector<int> decide(const Meeting& m, Arrivals& arrivals) {
  const auto begin = Clock::now(), end = begin + m.timeout;
  bool is_said = false;
  std::vector<int> missing = arrivals.missing();
  for (auto pause = Milliseconds(1); !missing.empty() && Clock::now() < end;
       pause = std::min(2 * pause, Milliseconds(50))) {
    if (!is_said && Clock::now() - begin > m.heartbeat)
      is_said = true, arrivals.say_who_is_missing();
    std::this_thread::sleep_for(pause);
    missing = arrivals.missing();
  }
  std::vector<uint8_t> verdict = as_bytes(missing);
  verdict.insert(verdict.begin(), 1);
  m.store->set(m.key + "verdict", verdict);
  if (!missing.empty()) std::this_thread::sleep_for(kVerdict);
  return missing;
}

// Whether the key came within `limit`; throws where the store did not answer.
bool waits(const Meeting& m, const std::string& key, Milliseconds limit) {
  const auto end = Clock::now() + limit;
  try {
    m.store->wait({key}, limit);
    return true;
  } catch (const std::exception&) {
    if (Clock::now() + Milliseconds(1) < end) throw;
    return false;
  }
}

std::vector<int> hear(const Meeting& m, Arrivals& arrivals) {
  const std::string verdict = m.key + "verdict";
  const auto end = Clock::now() + m.timeout + kVerdict;
  const auto left = [&] {
    return std::max(Milliseconds(1), std::chrono::duration_cast<Milliseconds>(end - Clock::now()));
  };
  try {
    bool came = waits(m, verdict, std::min(m.heartbeat, left()));
    if (!came && m.heartbeat < m.timeout) {
      arrivals.say_who_is_missing();
      came = waits(m, verdict, left());
    }
    if (!came) return arrivals.missing();  // the lead is among them
    std::vector<uint8_t> bytes = m.store->get(verdict);
    bytes.erase(bytes.begin());
    return as_ints(bytes);
  } catch (const std::exception&) {
    // at the end, whoever serves the store gave up first
    if (Clock::now() + 2 * kVerdict < end || arrivals.last_missing().empty()) throw;
    return arrivals.last_missing();
  }
}

}  // namespace

std::string list_of(std::vector<int> ranks) {
  std::sort(ranks.begin(), ranks.end());
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (last < i + 2) last = i;  // two are a list
    text += text.empty() ? "" : ", ";
    text += last == i ? std::to_string(ranks[i]) : fmt::format("{}-{}", ranks[i], ranks[last]);
    i = last + 1;
  }
  return text;
}

std::vector<int> missing_at(const Meeting& meeting) {
  Arrivals arrivals(meeting);
  return meeting.place.rank == 0 ? decide(meeting, arrivals) : hear(meeting, arrivals);
}

}  // namespace lehr::dist
