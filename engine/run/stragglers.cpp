#include "engine/run/stragglers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace lehr::run {
namespace {

// the lower one of two in the middle: of two ranks, the faster
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::string Stragglers::note(const std::vector<double>& seconds) {
  steps_.push_back(seconds);
  if (steps_.size() < kSteps) return "";
  std::vector<double> medians;
  for (size_t r = 0; r < seconds.size(); ++r) {
    std::vector<double> of_rank;
    for (const auto& step : steps_) of_rank.push_back(step[r]);
    medians.push_back(median(of_rank));
  }
  steps_.clear();
  const double usual = median(medians);
  std::vector<std::string> slow;
  for (size_t r = 0; r < medians.size(); ++r)
    if (medians[r] > kSlow * usual)
      slow.push_back(fmt::format("rank {} ({:.1f} ms)", r, medians[r] * 1e3));
  if (slow.empty()) return "";
  return fmt::format(
      "over {} steps these were slow, and all waited for them: {}; the others' own work of a step "
      "takes {:.1f} ms",
      kSteps, fmt::join(slow, ", "), usual * 1e3);
}

}  // namespace lehr::run
