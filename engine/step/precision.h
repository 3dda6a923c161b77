// What a precision means: the dtype in which the forward may compute (autocast), and for fp16 the
// loss scale that keeps small gradients representable. Loss and updates are always float32, and
// weights too but for the model's own under bf16-master (engine/step/masters.h).
#pragma once

#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

#include <optional>

#include "engine/step/fields.h"

namespace lehr::step {

// For autocast; nullopt for fp32 and bf16-master. Throws Error{kRecipe} for an unknown name.
std::optional<at::ScalarType> compute_dtype(const std::string& precision);

// Autocast for this thread while it lives; the casts of the weights that it cached go with it, so
// the guard spans one forward and ends before the backward.
class Autocast {
 public:
  Autocast(at::DeviceType device, std::optional<at::ScalarType> dtype);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  at::DeviceType device_;
  at::ScalarType old_dtype_{};
  bool on_, was_on_ = false;
};

// The dynamic loss scale: doubles after `window` good steps in a row, halves on overflow. 1 for
// good where it is off.
class LossScale {
 public:
  LossScale() = default;
  explicit LossScale(const TrainingFields& fields);
  double value() const { return value_; }
  void grow();    // after a good step
  bool shrink();  // after an overflow; false when there is no scale left to take away
  int64_t good_steps() const { return good_; }
  void restore(double value, int64_t good_steps) { value_ = value, good_ = good_steps; }

 private:
  bool on_ = false;
  double value_ = 1;
  int64_t good_ = 0, window_ = 0;
};

}  // namespace lehr::step
