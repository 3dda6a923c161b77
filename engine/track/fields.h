// The recipe fields of tracking and profiling.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::track {

// Part of section `metrics`; what is measured is declared in engine/metrics.
struct TrackFields {
  Duration log_interval{10, Duration::Unit::kSteps};
  StringList report_to{"tensorboard"};
  static Section section();
};

struct ProfilingFields {
  bool enabled = false;
  int64_t first_step = 10, steps = 3;
  std::string file = "trace.json";
  bool speed_of_light = false;
  static Section section();
};

std::vector<Section> sections();

}  // namespace lehr::track
