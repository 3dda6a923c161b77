// How far the probabilities of a classifier can be believed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/metrics/accumulator.h"
#include "engine/metrics/families.h"
#include "engine/metrics/sum.h"

namespace lehr::metrics {

namespace {

// Mean of -ln p(true class), natural logarithm. p is clipped to [eps, 1 - eps] of double, as in
// scikit-learn, so a certain and wrong prediction costs 36 and not infinity.
class LogLoss final : public ClassMetric {
 public:
  using ClassMetric::ClassMetric;

 protected:
  void take(const double* scores, int64_t label) final {
    constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
    sum_.add(-std::log(std::clamp(scores[label], kEpsilon, 1 - kEpsilon)));
  }
  void save(std::vector<double>& payload) const final {
    payload.insert(payload.end(), {sum_.high(), sum_.low()});
  }
  void load(const double* payload, int64_t) final { sum_.add(Sum(payload[0], payload[1])); }
  Result result() const final { return number(sum_.value() / static_cast<double>(seen())); }

 private:
  Sum sum_;
};

// Expected calibration error (Guo et al. 2017): over bins (i/M, (i+1)/M] of the top label's
// confidence, the mean of |share right - mean confidence| weighted by the samples in the bin; 0 is
// in the first bin.
class CalibrationError final : public ClassMetric {
 public:
  explicit CalibrationError(const MetricContext& context)
      : ClassMetric("calibration_error", context), bins_(static_cast<size_t>(context.bins)) {
    const double width = 1.0 / static_cast<double>(context.bins);
    for (int64_t i = 1; i < context.bins; ++i) edges_.push_back(static_cast<double>(i) * width);
  }

 protected:
  void take(const double* scores, int64_t label) final {
    const int64_t guess = predicted(scores);
    Bin& bin =
        bins_[std::lower_bound(edges_.begin(), edges_.end(), scores[guess]) - edges_.begin()];
    bin.right += guess == label;
    bin.confidence.add(scores[guess]);
  }
  void save(std::vector<double>& payload) const final {
    for (const Bin& bin : bins_)
      payload.insert(payload.end(),
                     {static_cast<double>(bin.right), bin.confidence.high(), bin.confidence.low()});
  }
  void load(const double* payload, int64_t) final {
    for (Bin& bin : bins_) {
      bin.right += static_cast<int64_t>(payload[0]);
      bin.confidence.add(Sum(payload[1], payload[2]));
      payload += 3;
    }
  }
  Result result() const final {
    // a bin's weight times its gap is |right - sum of confidence| / samples: no count is needed
    double gaps = 0;
    for (const Bin& bin : bins_)
      gaps += std::abs(static_cast<double>(bin.right) - bin.confidence.value());
    return number(gaps / static_cast<double>(seen()));
  }

 private:
  struct Bin {
    int64_t right = 0;
    Sum confidence;
  };
  std::vector<double> edges_;  // inner ones
  std::vector<Bin> bins_;
};

}  // namespace

std::unique_ptr<Metric> make_log_loss(const MetricContext& context) {
  return std::make_unique<LogLoss>("log_loss", context);
}
std::unique_ptr<Metric> make_calibration_error(const MetricContext& context) {
  return std::make_unique<CalibrationError>(context);
}

}  // namespace lehr::metrics
