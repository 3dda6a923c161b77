// Distances between predicted and true values. With several outputs: the mean over outputs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/metrics/accumulator.h"
#include "engine/metrics/families.h"
#include "engine/metrics/sum.h"

namespace lehr::metrics {

namespace {

// What one output needs for all three.
struct Output {
  Sum absolute, squared;       // of the errors
  Sum target, target_squared;  // of the true values
  double lowest = INFINITY, highest = -INFINITY;

  void take(double score, double truth) {
    const double error = score - truth;
    absolute.add(std::abs(error));
    squared.add_product(error, error);
    target.add(truth);
    target_squared.add_product(truth, truth);
    lowest = std::min(lowest, truth);
    highest = std::max(highest, truth);
  }
  // samples x variance of the true values. The difference of two large sums that almost cancel:
  // taken in double-double, so values like 1e9 +- 1 keep 14 digits.
  double spread(int64_t samples) const {
    Sum scaled;
    const double n = static_cast<double>(samples);
    scaled.add_product(n, target_squared.high());
    scaled.add_product(n, target_squared.low());
    scaled.add_product(-target.high(), target.high());
    scaled.add_product(-2 * target.high(), target.low());
    scaled.add_product(-target.low(), target.low());
    return scaled.value() / n;
  }
};

double rmse_of(const Output& output, int64_t samples) {
  return std::sqrt(output.squared.value() / static_cast<double>(samples));
}
double mae_of(const Output& output, int64_t samples) {
  return output.absolute.value() / static_cast<double>(samples);
}
double r2_of(const Output& output, int64_t samples) {
  return 1 - output.squared.value() / output.spread(samples);
}

using Distance = double (*)(const Output& output, int64_t samples);

class ValueDistance final : public ValueMetric {
 public:
  ValueDistance(std::string name, Distance distance, bool needs_spread)
      : ValueMetric(std::move(name)), distance_(distance), needs_spread_(needs_spread) {}

 protected:
  void begin(int64_t outputs) final {
    if (outputs_.empty()) outputs_.resize(static_cast<size_t>(outputs));
    TORCH_CHECK(outputs == static_cast<int64_t>(outputs_.size()), "metric ", name(), " saw ",
                outputs_.size(), " outputs before and ", outputs, " now");
  }
  void take(const double* scores, const double* targets) final {
    for (Output& output : outputs_) output.take(*scores++, *targets++);
  }
  void save(std::vector<double>& payload) const final {
    for (const Output& o : outputs_)
      payload.insert(
          payload.end(),
          {o.absolute.high(), o.absolute.low(), o.squared.high(), o.squared.low(), o.target.high(),
           o.target.low(), o.target_squared.high(), o.target_squared.low(), o.lowest, o.highest});
  }
  void load(const double* payload, int64_t size) final {
    constexpr int64_t kPerOutput = 10;
    if (size == 0) return;  // a rank that saw nothing
    begin(size / kPerOutput);
    for (Output& o : outputs_) {
      o.absolute.add(Sum(payload[0], payload[1]));
      o.squared.add(Sum(payload[2], payload[3]));
      o.target.add(Sum(payload[4], payload[5]));
      o.target_squared.add(Sum(payload[6], payload[7]));
      o.lowest = std::min(o.lowest, payload[8]);
      o.highest = std::max(o.highest, payload[9]);
      payload += kPerOutput;
    }
  }
  Result result() const final {
    if (needs_spread_ && seen() < 2) return undefined("one sample has no variance to explain");
    double sum = 0;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (needs_spread_ && outputs_[i].lowest == outputs_[i].highest)
        return undefined(fmt::format("all true values of output {} are equal", i));
      sum += distance_(outputs_[i], seen());
    }
    return number(sum / static_cast<double>(outputs_.size()));
  }

 private:
  Distance distance_;
  bool needs_spread_;
  std::vector<Output> outputs_;
};

}  // namespace

std::unique_ptr<Metric> make_rmse(const MetricContext&) {
  return std::make_unique<ValueDistance>("rmse", rmse_of, false);
}
std::unique_ptr<Metric> make_mae(const MetricContext&) {
  return std::make_unique<ValueDistance>("mae", mae_of, false);
}
std::unique_ptr<Metric> make_r2(const MetricContext&) {
  return std::make_unique<ValueDistance>("r2", r2_of, true);
}

}  // namespace lehr::metrics
