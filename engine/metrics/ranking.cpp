// Areas under curves. Exact with ties, which needs every score: 8 bytes per sample and class,
// sorted once when asked. With many classes and samples that is the memory to think of.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "engine/metrics/accumulator.h"
#include "engine/metrics/families.h"

namespace lehr::metrics {

namespace {

// Samples with one score: how many of the class and of the others.
struct Tie {
  double positives = 0, negatives = 0;
};

// From the highest score to the lowest.
using Curve = std::vector<Tie>;

// Mann-Whitney: the share of (positive, negative) pairs in the right order, equal scores counting
// half. Every term is a multiple of 1/2 and below 2^53 for 10^7 samples a class, so the sum is
// exact.
double roc_area(const Curve& curve, double positives, double negatives) {
  double pairs = 0, below = negatives;
  for (const Tie& tie : curve) {
    below -= tie.negatives;
    pairs += tie.positives * (below + tie.negatives / 2);
  }
  return pairs / positives / negatives;
}

// Average precision: sum of (recall step x precision at that threshold), no interpolation.
double average_precision(const Curve& curve, double positives, double) {
  double area = 0, true_positives = 0, taken = 0;
  for (const Tie& tie : curve) {
    true_positives += tie.positives;
    taken += tie.positives + tie.negatives;
    area += tie.positives * (true_positives / taken);
  }
  return area / positives;
}

using Area = double (*)(const Curve& curve, double positives, double negatives);

// Binary: the positive class against the other. More classes: the mean over classes of one against
// the rest, undefined when one of them has no samples.
class Ranking final : public ClassMetric {
 public:
  Ranking(std::string name, Area area, bool needs_negatives, const MetricContext& context)
      : ClassMetric(std::move(name), context),
        area_(area),
        needs_negatives_(needs_negatives),
        positive_(context.positive),
        columns_(context.classes == 2 ? 1 : context.classes) {}

 protected:
  void take(const double* scores, int64_t label) final {
    labels_.push_back(label);
    const double* first = columns_ == 1 ? scores + positive_ : scores;
    scores_.insert(scores_.end(), first, first + columns_);
  }
  void save(std::vector<double>& payload) const final {
    payload.reserve(payload.size() + labels_.size() + scores_.size());
    payload.insert(payload.end(), labels_.begin(), labels_.end());
    payload.insert(payload.end(), scores_.begin(), scores_.end());
  }
  void load(const double* payload, int64_t size) final {
    const int64_t samples = size / (1 + columns_);
    for (int64_t i = 0; i < samples; ++i) labels_.push_back(static_cast<int64_t>(payload[i]));
    scores_.insert(scores_.end(), payload + samples, payload + size);
  }
  Result result() const final {
    double sum = 0;
    for (int64_t column = 0; column < columns_; ++column) {
      const int64_t c = columns_ == 1 ? positive_ : column;
      const Curve curve = curve_of(c, column);
      Tie total;
      for (const Tie& tie : curve)
        total.positives += tie.positives, total.negatives += tie.negatives;
      if (total.positives == 0) return undefined(fmt::format("no sample is of class {}", c));
      if (total.negatives == 0 && needs_negatives_)
        return undefined(fmt::format("every sample is of class {}", c));
      sum += area_(curve, total.positives, total.negatives);
    }
    return number(sum / static_cast<double>(columns_));
  }

 private:
  Curve curve_of(int64_t c, int64_t column) const {
    std::vector<std::pair<double, bool>> order;
    order.reserve(labels_.size());
    for (size_t i = 0; i < labels_.size(); ++i)
      order.emplace_back(scores_[i * columns_ + column], labels_[i] == c);
    std::sort(order.begin(), order.end(),
              [](const auto& a, const auto& b) { return a.first > b.first; });
    Curve curve;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i == 0 || order[i].first != order[i - 1].first) curve.emplace_back();
      (order[i].second ? curve.back().positives : curve.back().negatives) += 1;
    }
    return curve;
  }

  Area area_;
  bool needs_negatives_;
  int64_t positive_, columns_;
  std::vector<int64_t> labels_;
  std::vector<double> scores_;  // [samples, columns]
};

}  // namespace

std::unique_ptr<Metric> make_roc_auc(const MetricContext& context) {
  return std::make_unique<Ranking>("roc_auc", roc_area, true, context);
}
std::unique_ptr<Metric> make_pr_auc(const MetricContext& context) {
  return std::make_unique<Ranking>("pr_auc", average_precision, false, context);
}

}  // namespace lehr::metrics
