#include "engine/step/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/base/error.h"

namespace lehr::step {
namespace {

ScheduleFields named(const std::string& name) {
  ScheduleFields fields;
  fields.name = name;
  return fields;
}

TEST(Schedule, ConstantRisesAndStays) {
  auto fields = named("constant");
  fields.warmup_steps = Duration{4};
  Schedule s(fields, 0, 0);
  for (int64_t i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(s.factor(i), (static_cast<double>(i) + 1) / 4);
  for (int64_t i = 4; i < 100; i += 7) EXPECT_EQ(s.factor(i), 1);
}

TEST(Schedule, LinearAndCosineFollowTheirClosedForms) {
  const double m = 0.1, T = 50, W = 10;
  for (const char* name : {"linear", "cosine"}) {
    auto fields = named(name);
    fields.warmup_steps = Duration{W};
    fields.min_lr_factor = m;
    Schedule s(fields, static_cast<int64_t>(T), 0);
    for (int64_t i = 0; i < 60; ++i) {
      double p = std::clamp((static_cast<double>(i) - W) / (T - W), 0.0, 1.0);
      double form = std::string(name) == "linear"
                        ? m + (1 - m) * (1 - p)
                        : m + (1 - m) * (1 + std::cos(std::numbers::pi * p)) / 2;
      double warm = static_cast<double>(i) < W ? (static_cast<double>(i) + 1) / W : 1;
      EXPECT_NEAR(s.factor(i), form * warm, 1e-12) << name << " " << i;
    }
    EXPECT_EQ(s.factor(10), 1);
    EXPECT_NEAR(s.factor(50), m, 1e-12);
  }
}

TEST(Schedule, WsdStaysThenFallsOverItsLastPart) {
  auto fields = named("wsd");
  fields.warmup_steps = Duration{10};
  fields.decay_fraction = 0.2;
  fields.min_lr_factor = 0.05;
  Schedule s(fields, 100, 0);
  EXPECT_DOUBLE_EQ(s.factor(4), 0.5);
  for (int64_t i = 9; i <= 80; ++i) EXPECT_EQ(s.factor(i), 1);
  for (int64_t i = 80; i <= 100; ++i)
    EXPECT_NEAR(s.factor(i), 0.05 + 0.95 * (100 - static_cast<double>(i)) / 20, 1e-12);
  EXPECT_NEAR(s.factor(500), 0.05, 1e-12);
}

TEST(Schedule, StepDropsAtEpochsAndKeepsItsFloor) {
  auto fields = named("step");
  fields.gamma = 0.1;
  fields.min_lr_factor = 0.005;
  fields.milestones = {{2, Duration::Unit::kEpochs}, Duration{50}};
  Schedule s(fields, 0, 10);
  EXPECT_EQ(s.factor(19), 1);
  EXPECT_DOUBLE_EQ(s.factor(20), 0.1);
  EXPECT_DOUBLE_EQ(s.factor(50), 0.01);
  fields.milestones = {Duration{1}, Duration{2}, Duration{3}};
  EXPECT_DOUBLE_EQ(Schedule(fields, 0, 10).factor(3), 0.005);
}

TEST(Schedule, OneCycleRisesToItsTopAndEndsAtItsFloor) {
  Schedule s(named("one_cycle"), 100, 0);
  EXPECT_NEAR(s.factor(0), 1 / 25.0, 1e-12);
  EXPECT_NEAR(s.factor(29), 1, 1e-12);
  EXPECT_NEAR(s.factor(99), 1 / 25.0 / 1e4, 1e-12);
  EXPECT_NEAR(s.factor(1000), s.factor(99), 1e-15);
}

TEST(Schedule, RefusesLengthsThatCannotBe) {
  auto throws = [](const ScheduleFields& fields, int64_t total, int64_t epoch) {
    try {
      Schedule s(fields, total, epoch);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kRecipe);
      return e.where();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(throws(named("cosine"), 0, 0), "lr_scheduler.name");
  EXPECT_EQ(throws(named("one_cycle"), 0, 0), "lr_scheduler.name");
  EXPECT_EQ(throws(named("cosin"), 10, 0), "lr_scheduler.name");
  auto fields = named("cosine");
  fields.warmup_steps = Duration{10};
  EXPECT_EQ(throws(fields, 10, 0), "lr_scheduler.warmup_steps");
  EXPECT_EQ(throws(fields, 11, 0), "accepted");
  fields.warmup_steps = {1, Duration::Unit::kSeconds};
  EXPECT_EQ(throws(fields, 10, 0), "lr_scheduler.warmup_steps");
  fields.warmup_steps = {1, Duration::Unit::kEpochs};
  EXPECT_EQ(throws(fields, 10, 0), "lr_scheduler.warmup_steps");  // epochs of unknown length
  EXPECT_EQ(throws(fields, 10, 4), "accepted");
  EXPECT_EQ(throws(named("step"), 0, 0), "lr_scheduler.step_size");
  fields = named("step");
  fields.milestones = {{1, Duration::Unit::kTokens}};
  EXPECT_EQ(throws(fields, 0, 0), "lr_scheduler.milestones");
  fields = named("wsd");
  fields.decay_fraction = 0.8;
  fields.warmup_steps = Duration{30};
  EXPECT_EQ(throws(fields, 100, 0), "lr_scheduler.decay_fraction");
}

}  // namespace
}  // namespace lehr::step
