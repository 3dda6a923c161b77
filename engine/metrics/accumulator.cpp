#include "engine/metrics/accumulator.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "engine/base/error.h"

namespace lehr::metrics {

namespace {

constexpr int64_t kHeader = 3;

at::Tensor as_rows(const at::Tensor& tensor) {
  at::Tensor rows = tensor.to(at::kCPU, at::kDouble).contiguous();
  return rows.dim() == 1 ? rows.unsqueeze(1) : rows;
}

}  // namespace

at::Tensor Accumulator::state() const {
  std::vector<double> flat(kHeader);
  save(flat);
  flat[0] = static_cast<double>(flat.size() - kHeader);
  flat[1] = static_cast<double>(seen_);
  flat[2] = static_cast<double>(bad_);
  return at::from_blob(flat.data(), {static_cast<int64_t>(flat.size())}, at::kDouble).clone();
}

void Accumulator::merge(const at::Tensor& state) {
  TORCH_CHECK(state.dim() == 1 && state.scalar_type() == at::kDouble,
              "a metric's state is one flat float64 tensor");
  const at::Tensor flat = state.cpu().contiguous();
  const double* data = flat.const_data_ptr<double>();
  for (int64_t left = flat.numel(); left > 0;) {
    const int64_t size = left >= kHeader ? static_cast<int64_t>(data[0]) : -1;
    TORCH_CHECK(size >= 0 && size <= left - kHeader, "the state of metric ", name_,
                " is cut short");
    seen_ += static_cast<int64_t>(data[1]);
    bad_ += static_cast<int64_t>(data[2]);
    load(data + kHeader, size);
    data += kHeader + size;
    left -= kHeader + size;
  }
}

std::vector<Result> Accumulator::compute() const {
  if (seen_ == 0) return {undefined("no samples were seen")};
  if (bad_ > 0)
    return {
        undefined(fmt::format("{} of {} samples have a score that is not finite", bad_, seen_))};
  return {result()};
}

Result Accumulator::number(double value) const {
  if (!std::isfinite(value)) return undefined("the values leave the range of double precision");
  return {name_, value, ""};
}

bool Accumulator::accept(const double* values, int64_t size) {
  ++seen_;
  const bool fine = std::all_of(values, values + size, [](double v) { return std::isfinite(v); });
  bad_ += !fine;
  return fine;
}

void ClassMetric::update(const at::Tensor& scores, const at::Tensor& targets) {
  TORCH_CHECK(scores.dim() == 2 && scores.size(1) == classes_ && targets.dim() == 1 &&
                  targets.size(0) == scores.size(0),
              "metric ", name(), " takes scores [B, ", classes_, "] and targets [B], not ",
              scores.sizes(), " and ", targets.sizes());
  const at::Tensor rows = as_rows(scores), labels = targets.to(at::kCPU, at::kLong).contiguous();
  const double* row = rows.const_data_ptr<double>();
  const int64_t* label = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i, row += classes_) {
    if (label[i] < 0 || label[i] >= classes_)
      throw Error(Code::kData,
                  fmt::format("target {} is no class of 0..{}", label[i], classes_ - 1), "metrics",
                  "The labels and the number of classes of the data do not fit.");
    if (accept(row, classes_)) take(row, label[i]);
  }
}

int64_t ClassMetric::predicted(const double* scores) const {
  return std::max_element(scores, scores + classes_) - scores;
}

void ValueMetric::update(const at::Tensor& scores, const at::Tensor& targets) {
  const at::Tensor rows = as_rows(scores), truth = as_rows(targets);
  TORCH_CHECK(rows.dim() == 2 && rows.sizes() == truth.sizes(), "metric ", name(),
              " takes scores and targets of one shape [B, K], not ", scores.sizes(), " and ",
              targets.sizes());
  const int64_t outputs = rows.size(1);
  begin(outputs);
  const double *row = rows.const_data_ptr<double>(), *target = truth.const_data_ptr<double>();
  for (int64_t i = 0; i < rows.size(0); ++i, row += outputs, target += outputs)
    if (accept(row, outputs)) take(row, target);
}

}  // namespace lehr::metrics
