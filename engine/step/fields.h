// The recipe fields of this room: what a recipe says about loss, optimizer, schedule and training.
// Plain values; each part of the room takes the struct that it needs.
#pragma once

#include <optional>
#include <string>

#include "engine/base/fields.h"

namespace lehr::step {

struct LossFields {
  std::string name = "cross_entropy";
  FloatList class_weights;  // empty: every class counts the same
  double label_smoothing = 0, z_loss = 0;
  double pos_weight = 1;
  double delta = 1;
  static Section section();
};

struct OptimizerFields {
  std::string name = "adamw";
  double lr = 1e-3;
  std::optional<double> weight_decay;  // absent: PyTorch's default of the optimizer
  std::optional<StringList> no_decay;  // absent: parameters with fewer than two dimensions
  FloatList betas{0.9, 0.999};
  double eps = 1e-8;
  double momentum = 0.9;
  bool nesterov = false;
  FloatMap lr_factors, weight_decays;
  StringList freeze;
  static Section section();
};

struct ScheduleFields {
  std::string name = "constant";
  Duration warmup_steps;
  double min_lr_factor = 0;
  std::optional<Duration> step_size;
  DurationList milestones;
  double gamma = 0.1;
  double decay_fraction = 0.1;
  double pct_start = 0.3, div_factor = 25, final_div_factor = 1e4;
  static Section section();
};

struct ParallelismFields {
  std::string reduction = "plain";
  int64_t logical_shards = 8;
  int64_t bucket_mb = 25;
  std::string compression = "none", batch_norm = "broadcast";
  int64_t zero_stage = 0, data_parallel_shard_degree = 0;
  Duration timeout{600, Duration::Unit::kSeconds}, heartbeat{5, Duration::Unit::kSeconds};
  static Section section();
};

struct TrainingFields {
  std::string precision = "fp32";
  std::string kernels = "auto";
  bool cuda_graph = false;
  std::optional<double> max_grad_norm;
  std::string non_finite = "stop";
  std::optional<double> ema_decay;
  double initial_loss_scale = 65536;
  int64_t loss_scale_window = 2000;
  static Section section();
};

}  // namespace lehr::step
