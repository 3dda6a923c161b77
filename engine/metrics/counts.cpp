// Metrics that are ratios of integer counts: exact in any order of batches and ranks.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "engine/metrics/accumulator.h"
#include "engine/metrics/families.h"

namespace lehr::metrics {

namespace {

class Hits : public ClassMetric {
 public:
  using ClassMetric::ClassMetric;

 protected:
  void count(bool hit) { hits_ += hit; }
  void save(std::vector<double>& payload) const final {
    payload.push_back(static_cast<double>(hits_));
  }
  void load(const double* payload, int64_t) final { hits_ += static_cast<int64_t>(payload[0]); }
  Result result() const final {
    return number(static_cast<double>(hits_) / static_cast<double>(seen()));
  }

 private:
  int64_t hits_ = 0;
};

class Accuracy final : public Hits {
 public:
  using Hits::Hits;

 protected:
  void take(const double* scores, int64_t label) final { count(predicted(scores) == label); }
};

// Among equal scores the higher class comes first, as in scikit-learn's top_k_accuracy_score.
class TopK final : public Hits {
 public:
  explicit TopK(const MetricContext& context)
      : Hits(fmt::format("top_{}_accuracy", context.k), context), k_(context.k) {}

 protected:
  void take(const double* scores, int64_t label) final {
    int64_t ahead = 0;
    for (int64_t c = 0; c < classes(); ++c)
      ahead += scores[c] > scores[label] || (scores[c] == scores[label] && c > label);
    count(ahead < k_);
  }

 private:
  int64_t k_;
};

// Per class: samples that are it, samples predicted as it, and both.
class ClassRate final : public ClassMetric {
 public:
  ClassRate(std::string name, Rate rate, Average average, const MetricContext& context)
      : ClassMetric(std::move(name), context),
        rate_(rate),
        average_(average),
        positive_(context.positive),
        counts_(static_cast<size_t>(3 * context.classes)) {}

 protected:
  void take(const double* scores, int64_t label) final {
    const int64_t guess = predicted(scores);
    ++counts_[3 * label + kActual];
    ++counts_[3 * guess + kPredicted];
    if (guess == label) ++counts_[3 * label + kBoth];
  }
  void save(std::vector<double>& payload) const final {
    payload.insert(payload.end(), counts_.begin(), counts_.end());
  }
  void load(const double* payload, int64_t) final {
    for (int64_t& count : counts_) count += static_cast<int64_t>(*payload++);
  }
  Result result() const final {
    if (average_ == Average::kMacro) return macro();
    if (average_ == Average::kMicro) return micro();
    const Ratio ratio = of_class(positive_);
    if (ratio.denominator == 0) return undefined(reason());
    return number(ratio.value());
  }

 private:
  enum { kActual, kPredicted, kBoth };
  struct Ratio {
    double numerator, denominator;
    double value() const { return numerator / denominator; }
  };
  Ratio of_counts(double actual, double predicted, double both) const {
    switch (rate_) {
      case Rate::kPrecision:
        return {both, predicted};
      case Rate::kRecall:
        return {both, actual};
      case Rate::kF1:
        return {2 * both, actual + predicted};
      case Rate::kSpecificity:
        break;
    }
    const double negatives = static_cast<double>(seen()) - actual;
    return {negatives - (predicted - both), negatives};
  }
  Ratio of_class(int64_t c) const {
    return of_counts(counts_[3 * c + kActual], counts_[3 * c + kPredicted], counts_[3 * c + kBoth]);
  }
  // mean over the classes that occur, in truth or in predictions; 0/0 counts as 0 (scikit-learn's
  // rule)
  Result macro() const {
    double sum = 0;
    int64_t occurring = 0;
    for (int64_t c = 0; c < classes(); ++c) {
      if (counts_[3 * c + kActual] + counts_[3 * c + kPredicted] == 0) continue;
      const Ratio ratio = of_class(c);
      sum += ratio.denominator > 0 ? ratio.value() : 0;
      ++occurring;
    }
    return number(sum / static_cast<double>(occurring));
  }
  // each sample has one label, so precision, recall and f1 are all the accuracy
  Result micro() const {
    double both = 0;
    for (int64_t c = 0; c < classes(); ++c) both += static_cast<double>(counts_[3 * c + kBoth]);
    return number(both / static_cast<double>(seen()));
  }
  std::string reason() const {
    switch (rate_) {
      case Rate::kPrecision:
        return fmt::format("no sample was predicted as class {}", positive_);
      case Rate::kRecall:
        return fmt::format("no sample is of the positive class {}", positive_);
      case Rate::kF1:
        return fmt::format("class {} was neither seen nor predicted", positive_);
      case Rate::kSpecificity:
        break;
    }
    return fmt::format("every sample is of the positive class {}", positive_);
  }

  Rate rate_;
  Average average_;
  int64_t positive_;
  std::vector<int64_t> counts_;
};

class Confusion final : public ClassMetric {
 public:
  explicit Confusion(const MetricContext& context)
      : ClassMetric("confusion", context),
        counts_(static_cast<size_t>(context.classes * context.classes)) {}
  Matrix matrix() const final {
    Matrix rows;
    for (auto row = counts_.begin(); row != counts_.end(); row += classes())
      rows.emplace_back(row, row + classes());
    return rows;
  }
  std::vector<Result> compute() const final { return {}; }

 protected:
  void take(const double* scores, int64_t label) final {
    ++counts_[label * classes() + predicted(scores)];
  }
  void save(std::vector<double>& payload) const final {
    payload.insert(payload.end(), counts_.begin(), counts_.end());
  }
  void load(const double* payload, int64_t) final {
    for (int64_t& count : counts_) count += static_cast<int64_t>(*payload++);
  }
  Result result() const final { return {}; }  // never asked

 private:
  std::vector<int64_t> counts_;  // [true, predicted]
};

}  // namespace

std::unique_ptr<Metric> make_accuracy(const MetricContext& context) {
  return std::make_unique<Accuracy>("accuracy", context);
}
std::unique_ptr<Metric> make_top_k(const MetricContext& context) {
  return std::make_unique<TopK>(context);
}
std::unique_ptr<Metric> make_rate(std::string name, Rate rate, Average average,
                                  const MetricContext& context) {
  return std::make_unique<ClassRate>(std::move(name), rate, average, context);
}
std::unique_ptr<Metric> make_confusion(const MetricContext& context) {
  return std::make_unique<Confusion>(context);
}

}  // namespace lehr::metrics
