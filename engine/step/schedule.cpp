#include "engine/step/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/base/error.h"

namespace lehr::step {
namespace {

int64_t steps_of(const Duration& length, const std::string& key, int64_t steps_per_epoch) {
  switch (length.unit) {
    case Duration::Unit::kSteps:
      return static_cast<int64_t>(length.value);
    case Duration::Unit::kEpochs:
      if (steps_per_epoch > 0)
        return static_cast<int64_t>(
            std::llround(length.value * static_cast<double>(steps_per_epoch)));
      [[fallthrough]];
    default:
      throw Error(Code::kRecipe, fmt::format("`{}` is no number of steps here", to_string(length)),
                  key, "write steps (500) or epochs (2ep)");
  }
}

double between(double from, double to, double p) {  // half a cosine: p = 0 is `from`, 1 is `to`
  return to + (from - to) * (1 + std::cos(std::numbers::pi * p)) / 2;
}

}  // namespace

struct Shapes {
  static double progress(const Schedule& s, int64_t step) {
    if (step <= s.warmup_ || s.total_ <= s.warmup_) return step > s.warmup_ ? 1 : 0;
    return std::min(
        1.0, static_cast<double>(step - s.warmup_) / static_cast<double>(s.total_ - s.warmup_));
  }
  static double constant(const Schedule&, int64_t) { return 1; }
  static double linear(const Schedule& s, int64_t step) {
    double m = s.fields_.min_lr_factor;
    return m + (1 - m) * (1 - progress(s, step));
  }
  static double cosine(const Schedule& s, int64_t step) {
    return between(1, s.fields_.min_lr_factor, progress(s, step));
  }
  static double step(const Schedule& s, int64_t step) {
    auto drops = s.step_size_ > 0
                     ? step / s.step_size_
                     : std::upper_bound(s.milestones_.begin(), s.milestones_.end(), step) -
                           s.milestones_.begin();
    return std::max(s.fields_.min_lr_factor, std::pow(s.fields_.gamma, static_cast<double>(drops)));
  }
  static double wsd(const Schedule& s, int64_t step) {
    double m = s.fields_.min_lr_factor;
    int64_t left = std::max<int64_t>(0, s.total_ - step);
    if (left >= s.decay_) return 1;
    return m + (1 - m) * static_cast<double>(left) / static_cast<double>(s.decay_);
  }
  static double one_cycle(const Schedule& s, int64_t step) {
    double last = static_cast<double>(s.total_ - 1);
    double top = s.fields_.pct_start * static_cast<double>(s.total_) - 1;
    double start = 1 / s.fields_.div_factor, end = start / s.fields_.final_div_factor;
    double at = std::min(static_cast<double>(step), last);
    if (at <= top) return between(start, 1, top > 0 ? at / top : 1);
    return between(1, end, last > top ? (at - top) / (last - top) : 1);
  }
};

namespace {

struct Entry {
  const char* name;
  double (*shape)(const Schedule&, int64_t);
  bool needs_total, has_warmup;
};
constexpr Entry kShapes[] = {{"constant", Shapes::constant, false, true},
                             {"linear", Shapes::linear, true, true},
                             {"cosine", Shapes::cosine, true, true},
                             {"step", Shapes::step, false, true},
                             {"wsd", Shapes::wsd, true, true},
                             {"one_cycle", Shapes::one_cycle, true, false}};

const Entry& find_shape(const std::string& name) {
  StringList names;
  for (const auto& entry : kShapes) {
    if (name == entry.name) return entry;
    names.push_back(entry.name);
  }
  throw Error(Code::kRecipe, fmt::format("there is no schedule `{}`", name), "lr_scheduler.name",
              fmt::format("did you mean `{}`?", nearest(name, names)));
}

}  // namespace

Schedule::Schedule(const ScheduleFields& fields, int64_t total_steps, int64_t steps_per_epoch)
    : fields_(fields), total_(total_steps) {
  const Entry& entry = find_shape(fields.name);
  shape_ = entry.shape;
  if (entry.needs_total && total_ <= 0)
    throw Error(Code::kRecipe,
                fmt::format("the schedule `{}` needs to know how long training is", fields.name),
                "lr_scheduler.name",
                "set training.max_steps or training.max_epochs, or use `constant`");
  if (entry.has_warmup)
    warmup_ = steps_of(fields.warmup_steps, "lr_scheduler.warmup_steps", steps_per_epoch);
  // one that only rises is none of these shapes; a constant step size may be reached at the end
  if (total_ > 0 && warmup_ > 0 && (entry.needs_total ? warmup_ >= total_ : warmup_ > total_))
    throw Error(
        Code::kRecipe,
        fmt::format("{} steps of warm-up leave nothing of a training of {} steps", warmup_, total_),
        "lr_scheduler.warmup_steps", "shorten the warm-up or train longer");
  if (shape_ == Shapes::step) {
    if (fields.step_size.has_value() == !fields.milestones.empty())
      throw Error(Code::kRecipe, "the schedule `step` needs either step_size or milestones",
                  "lr_scheduler.step_size", "write one of the two, e.g. `step_size: 10ep`");
    if (fields.step_size) {
      step_size_ = steps_of(*fields.step_size, "lr_scheduler.step_size", steps_per_epoch);
      if (step_size_ < 1)
        throw Error(Code::kRecipe, "a step_size below one step", "lr_scheduler.step_size",
                    "write at least one step");
    }
    for (const auto& length : fields.milestones)
      milestones_.push_back(steps_of(length, "lr_scheduler.milestones", steps_per_epoch));
    std::sort(milestones_.begin(), milestones_.end());
  }
  if (shape_ == Shapes::wsd) {
    decay_ = std::llround(fields.decay_fraction * static_cast<double>(total_));
    if (warmup_ + decay_ > total_)
      throw Error(Code::kRecipe,
                  fmt::format("{} steps of warm-up and {} of decay do not fit into {}", warmup_,
                              decay_, total_),
                  "lr_scheduler.decay_fraction", "shorten one of them or train longer");
  }
}

double Schedule::factor(int64_t step) const {
  double factor = shape_(*this, step);
  if (step < warmup_) factor *= static_cast<double>(step + 1) / static_cast<double>(warmup_);
  return factor;
}

}  // namespace lehr::step
