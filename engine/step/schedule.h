// The step size of every step as a closed form: no state, so a resumed run needs none. With s the
// step (from 0), T the steps of the training, W those of warm-up, m = min_lr_factor and
// p = (s - W) / (T - W), the factor on lr is (s + 1) / W times the form while s < W, and after it
//   constant   1
//   linear     m + (1 - m) (1 - p)
//   cosine     m + (1 - m) (1 + cos(pi p)) / 2      CosineAnnealingLR(T_max = T - W)
//   step       max(m, gamma ^ (drops up to s))      StepLR, MultiStepLR; lengths count from step 0
//   wsd        1, then m + (1 - m) (T - s) / D over the last D = decay_fraction T steps
//   one_cycle  OneCycleLR with cosines, two phases, lr as max_lr; no warm-up of its own, and the
//              momentum is left alone (cycle_momentum=False)
// p is taken as 0 during warm-up. Beyond T a factor stays at its last value.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/step/fields.h"

namespace lehr::step {

class Schedule {
 public:
  // Throws Error{kRecipe} for lengths that cannot be: a shape that needs the length of training
  // where it is unknown (total_steps 0), warm-up or decay longer than training, time or tokens as a
  // unit.
  Schedule(const ScheduleFields& fields, int64_t total_steps, int64_t steps_per_epoch);
  double factor(int64_t step) const;  // on optimizer.lr
  int64_t warmup_steps() const { return warmup_; }

 private:
  friend struct Shapes;
  ScheduleFields fields_;
  double (*shape_)(const Schedule& schedule, int64_t step) = nullptr;
  int64_t total_ = 0, warmup_ = 0, step_size_ = 0, decay_ = 0;
  IntList milestones_;
};

}  // namespace lehr::step
