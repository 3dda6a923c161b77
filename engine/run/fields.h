// The recipe fields that the loop itself reads, and the list of all rooms' sections.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::run {

struct JobFields {
  std::string name;  // "": the recipe's file name
  std::string description;
  std::string output_dir = "runs";
  std::optional<Duration> time_limit;
  int64_t max_restarts = 10;
  static Section section();
};

struct TrainingFields {
  std::optional<int64_t> global_batch_size, micro_batch_size, gradient_accumulation_steps;
  std::optional<int64_t> max_steps;
  std::optional<double> max_epochs;
  std::optional<Duration> max_time;
  std::string device = "auto";
  int64_t threads = 0;
  int64_t seed = 0;
  bool deterministic = true;
  bool tf32 = false;
  static Section section();
};

struct ValidationFields {
  Duration interval{1, Duration::Unit::kEpochs};
  std::string monitor = "loss";
  std::string mode = "auto";
  int64_t batch_size = 500;
  static Section section();
};

struct EarlyStoppingFields {
  std::optional<int64_t> patience;
  double min_delta = 0;
  static Section section();
};

// Sections of every room, in the order in which a recipe reads best.
std::vector<Section> all_sections();

}  // namespace lehr::run
