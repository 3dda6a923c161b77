// What the metrics of all families share: checking a batch, counting samples, and a state that says
// its own length, so that the states of ranks can simply be laid end to end.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/metrics/metrics.h"

namespace lehr::metrics {

// State layout: [payload length, samples, samples that are not finite, payload...], all float64:
// counts are exact up to 2^53. A sample with a NaN or infinite score is counted and not taken; it
// makes the result undefined, because leaving it out silently would flatter a broken model.
class Accumulator : public Metric {
 public:
  explicit Accumulator(std::string name) : name_(std::move(name)) {}
  at::Tensor state() const final;
  void merge(const at::Tensor& state) final;
  std::vector<Result> compute() const override;

 protected:
  virtual void save(std::vector<double>& payload) const = 0;
  virtual void load(const double* payload, int64_t size) = 0;  // adds
  virtual Result result() const = 0;  // only asked when samples were seen and all were finite

  Result number(double value) const;  // infinite or NaN becomes a reason
  Result undefined(std::string why) const { return {name_, std::nullopt, std::move(why)}; }
  int64_t seen() const { return seen_; }
  // False when one of the `size` values is NaN or infinite; counts the sample either way.
  bool accept(const double* values, int64_t size);
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  int64_t seen_ = 0, bad_ = 0;
};

// scores [B, C] with labels in [0, C).
class ClassMetric : public Accumulator {
 public:
  ClassMetric(std::string name, const MetricContext& context)
      : Accumulator(std::move(name)), classes_(context.classes) {}
  void update(const at::Tensor& scores, const at::Tensor& targets) final;

 protected:
  virtual void take(const double* scores, int64_t label) = 0;
  int64_t classes() const { return classes_; }
  // The class of the largest score, the first one among equals.
  int64_t predicted(const double* scores) const;

 private:
  int64_t classes_;
};

// scores and targets [B, K] (or [B]), K the same in every batch.
class ValueMetric : public Accumulator {
 public:
  using Accumulator::Accumulator;
  void update(const at::Tensor& scores, const at::Tensor& targets) final;

 protected:
  virtual void begin(int64_t outputs) = 0;  // before the first take(), and at any later batch
  virtual void take(const double* scores, const double* targets) = 0;
};

}  // namespace lehr::metrics
