// Names ranks that hold the others up.
#pragma once

#include <string>
#include <vector>

namespace lehr::run {

// A rank is slow when its own forward and backward have taken kSlow times what the others' take, by
// medians over kSteps steps: one slow step is nobody's fault.
class Stragglers {
 public:
  static constexpr size_t kSteps = 50;
  static constexpr double kSlow = 1.5;

  // Of a step, by rank. What there is to say, at most once every kSteps steps: who is slow, or
  // nothing.
  std::string note(const std::vector<double>& seconds);

 private:
  std::vector<std::vector<double>> steps_;  // of this window
};

}  // namespace lehr::run
