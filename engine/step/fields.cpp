#include "engine/step/fields.h"

#include "engine/step/step.h"

namespace lehr::step {

Section LossFields::section() {
  using F = LossFields;
  Declare<F> d("loss", "What training makes small.");
  d.field(
       "name", &F::name,
       "The loss: cross_entropy (classes), binary_cross_entropy (two classes, one logit), or mse, "
       "mae, huber (numbers).")
      .choices({"cross_entropy", "binary_cross_entropy", "mse", "mae", "huber"})
      .synonyms({"loss.type", "loss.otype", "loss_fn", "criterion"});
  d.field("class_weights", &F::class_weights,
          "Weight of each class, in the order of the classes; the loss is the weighted mean, as in "
          "PyTorch. Empty: all the same.")
      .when("name", {"cross_entropy"})
      .synonyms({"class_weight", "weight"});
  d.field(
       "label_smoothing", &F::label_smoothing,
       "Share of the target spread evenly over all classes; evaluations of a language model leave "
       "it out.")
      .range(0, 1)
      .when("name", {"cross_entropy"})
      .synonyms({"label_smoothing_factor", "smoothing"});
  d.field("z_loss", &F::z_loss,
          "Weight of the squared logarithm of the softmax's denominator, which keeps a language "
          "model's logits from drifting (1e-4 is usual); 0: off. Its evaluations leave it out.")
      .at_least(0)
      .when("name", {"cross_entropy"})
      .synonyms({"z_loss_weight", "lse_square_scale"});
  d.field("pos_weight", &F::pos_weight, "Weight of samples of class 1 against those of class 0.")
      .above(0)
      .when("name", {"binary_cross_entropy"})
      .synonyms({"positive_class_weight", "scale_pos_weight"});
  d.field("delta", &F::delta, "Error at which huber turns from squared to absolute.")
      .above(0)
      .when("name", {"huber"})
      .synonyms({"huber_delta", "beta"});
  return d.section();
}

Section OptimizerFields::section() {
  using F = OptimizerFields;
  Declare<F> d("optimizer", "How gradients move the weights.");
  d.field("name", &F::name, "The rule: adamw, or sgd with momentum.")
      .choices({"adamw", "sgd"})
      .synonyms({"optimizer.type", "optimizer._component_", "optim", "optimizer.otype"});
  d.field("lr", &F::lr, "Step size at the top of the schedule.")
      .above(0)
      .synonyms({"learning_rate", "optimizer.learning_rate", "max_lr", "training.lr",
                 "trainer.learning_rate"});
  d.field("weight_decay", &F::weight_decay,
          "Weight decay of the parameters that decay: decoupled in adamw, added to the gradient in "
          "sgd. Absent: 0.01 in adamw, 0 in sgd.")
      .at_least(0)
      .synonyms({"wd", "l2", "l2_reg"});
  d.field("no_decay", &F::no_decay,
          "Regular expressions of parameter names without weight decay. Absent: norms and biases, "
          "that is, parameters with fewer than two dimensions; []: everything decays.")
      .synonyms({"no_weight_decay", "skip_weight_decay", "exclude_from_weight_decay"});
  d.field("betas", &F::betas,
          "Decay of the running means of gradient and squared gradient, each in [0, 1).")
      .when("name", {"adamw"})
      .synonyms({"adam_betas", "beta1", "beta2"});
  d.field("eps", &F::eps, "Added to the root of the second moment.")
      .above(0)
      .when("name", {"adamw"})
      .synonyms({"epsilon", "adam_epsilon"});
  d.field("momentum", &F::momentum, "Decay of the running sum of gradients; 0 keeps none.")
      .range(0, 1)
      .when("name", {"sgd"});
  d.field("nesterov", &F::nesterov, "Looks ahead along the momentum.").when("name", {"sgd"});
  d.field("lr_factors", &F::lr_factors,
          "Regular expression of parameter names: factor on lr. The first that matches counts.")
      .synonyms({"lr_mult", "layer_lr", "param_groups"});
  d.field("weight_decays", &F::weight_decays,
          "Regular expression of parameter names: weight decay in place of weight_decay and "
          "no_decay. The first that matches counts.");
  d.field("freeze", &F::freeze,
          "Regular expressions of parameter names that keep their values and get no gradient.")
      .synonyms({"frozen", "freeze_layers", "unfrozen_parameters", "exclude_parameters"});
  return d.section();
}

Section ScheduleFields::section() {
  using F = ScheduleFields;
  const Units lengths{Duration::Unit::kSteps, Duration::Unit::kEpochs};
  const StringList warmed{"constant", "linear", "cosine", "step", "wsd"};
  Declare<F> d("lr_scheduler", "How the step size changes over training.");
  d.field("name", &F::name,
          "Shape after warm-up: constant, linear, cosine, step, wsd (warm-up, stable, decay) or "
          "one_cycle.")
      .choices({"constant", "linear", "cosine", "step", "wsd", "one_cycle"})
      .synonyms({"lr_scheduler.type", "lr_scheduler_type", "decay_type", "decay", "lr_policy"});
  d.field("warmup_steps", &F::warmup_steps,
          "Rises in a straight line over this length: step s of W (from 0) takes (s + 1) / W.")
      .units(lengths)
      .when("name", warmed)
      .synonyms({"num_warmup_steps", "t_warmup", "warmup", "warmup_ratio", "warmup_fraction"});
  d.field("min_lr_factor", &F::min_lr_factor, "The step size never falls below this times lr.")
      .range(0, 1)
      .when("name", {"linear", "cosine", "step", "wsd"})
      .synonyms({"alpha_f", "min_lr_ratio", "eta_min", "end_lr"});
  d.field("step_size", &F::step_size, "Multiplies by gamma after every such length.")
      .units(lengths)
      .when("name", {"step"})
      .synonyms({"decay_steps", "lr_step_size"});
  d.field("milestones", &F::milestones,
          "Multiplies by gamma after each of these lengths (500, 30ep), in place of step_size.")
      .units(lengths)
      .when("name", {"step"})
      .synonyms({"steps", "lr_steps"});
  d.field("gamma", &F::gamma, "What each drop of `step` multiplies by.")
      .range(0, 1)
      .when("name", {"step"})
      .synonyms({"decay_rate", "lr_gamma"});
  d.field("decay_fraction", &F::decay_fraction,
          "Last part of training over which wsd falls, in a straight line.")
      .range(0, 1)
      .when("name", {"wsd"})
      .synonyms({"decay_ratio"});
  d.field("pct_start", &F::pct_start, "Part of training over which one_cycle rises.")
      .range(0, 1)
      .when("name", {"one_cycle"});
  d.field("div_factor", &F::div_factor, "one_cycle starts at lr divided by this.")
      .at_least(1)
      .when("name", {"one_cycle"});
  d.field("final_div_factor", &F::final_div_factor, "one_cycle ends at its start divided by this.")
      .at_least(1)
      .when("name", {"one_cycle"});
  return d.section();
}

Section ParallelismFields::section() {
  using F = ParallelismFields;
  Declare<F> d("parallelism",
               "How several ranks (processes) share a step. Parameters that some ranks or all do "
               "not reach need no setting (elsewhere find_unused_parameters, static_graph).");
  d.field(
       "reduction", &F::reduction,
       "plain adds up gradients over the ranks, whose number then shows in the bits; fixed_order "
       "adds them up over logical shards in a fixed tree, so that 1, 2, 4, ... ranks give the "
       "same bits.")
      .choices({"plain", "fixed_order"});
  d.field("logical_shards", &F::logical_shards,
          "Micro-batches of a step over all ranks under fixed_order: a power of two, at least as "
          "many as ranks.")
      .at_least(1)
      .when("reduction", {"fixed_order"});
  d.field("bucket_mb", &F::bucket_mb,
          "Gradients are summed in buckets of so many MiB while the backward still runs.")
      .at_least(1)
      .when("reduction", {"plain"})
      .synonyms({"bucket_cap_mb", "reduce_bucket_size", "allreduce_bucket_size"});
  d.field("compression", &F::compression,
          "bf16 sends gradients as bfloat16: half the bytes, and sums of 8 bits.")
      .choices({"none", "bf16"})
      .when("reduction", {"plain"})
      .synonyms({"gradient_compression", "ddp_comm_hook"});
  d.field("batch_norm", &F::batch_norm,
          "broadcast: each rank normalizes its own micro-batch, and rank 0's running values are "
          "kept; synchronised: statistics are those of one micro-batch on every rank together.")
      .choices({"broadcast", "synchronised"})
      .when("reduction", {"plain"})
      .synonyms({"sync_batchnorm", "sync_bn", "convert_sync_batchnorm"});
  d.field("zero_stage", &F::zero_stage,
          "1 shares optimizer state among the ranks: each holds and moves its rows of every "
          "parameter. 2 shares gradients too: they are sent after every micro-batch, not after the "
          "last. Weights are whole on every rank.")
      .range(0, 2)
      .when("reduction", {"plain"})
      .synonyms({"zero_optimization.stage", "sharding_strategy", "fsdp"})
      .free_to_change();
  d.field("data_parallel_shard_degree", &F::data_parallel_shard_degree,
          "How many ranks share one copy, next to each other; 0: all.")
      .at_least(0)
      .when("reduction", {"plain"})
      .free_to_change();
  d.field(
       "timeout", &F::timeout,
       "How long a rank waits for the store and for the others before it gives up and names who is "
       "missing, and how long it may stand still before it is ended.")
      .units(kTime)
      .above(0)
      .synonyms({"init_timeout_seconds", "train_timeout_seconds", "dist_timeout", "ddp_timeout"})
      .free_to_change();
  d.field("heartbeat", &F::heartbeat,
          "How long training may stand still, ten times what is usual in its phase at least, or a "
          "rank be waited for, before that is said. Under `lehr launch` one that does not run at "
          "all is woken then, and ended if it does not wake.")
      .units(kTime)
      .above(0)
      .free_to_change();
  return d.section();
}

Section TrainingFields::section() {
  using F = TrainingFields;
  Declare<F> d("training", "");
  d.field("precision", &F::precision,
          "fp32, or forward in bf16 or fp16 where that is safe (autocast), with fp32 weights, loss "
          "and updates; fp16 scales the loss; bf16-master computes with bf16 weights, rounded from "
          "fp32 masters after every update.")
      .choices({"fp32", "bf16-mixed", "fp16-mixed", "bf16-master"})
      .synonyms({"mixed_precision_param", "training.dtype", "bf16", "fp16", "use_mixed_precision",
                 "bf16.enabled", "amp"});
  d.field(
       "kernels", &F::kernels,
       "Lehr's kernels or ATen's; auto takes what was measured to be faster; check runs both and "
       "reports the largest difference.")
      .choices({"auto", "custom", "aten", "check"});
  d.field(
       "cuda_graph", &F::cuda_graph,
       "On a GPU, records the forward and backward of a micro-batch once and replays them as one "
       "launch. Not for dropout. A CPU has nothing to record.")
      .synonyms({"use_cuda_graph", "cuda_graphs", "enable_cuda_graph"});
  d.field("max_grad_norm", &F::max_grad_norm,
          "Scales the gradient down to this global norm when it is longer. Absent: never.")
      .above(0)
      .synonyms({"max_norm", "clip_grad_norm", "gradient_clip_val", "gradient_clipping",
                 "clipglobalnorm", "clipping_threshold"});
  d.field("non_finite", &F::non_finite,
          "When a loss or gradient is not finite, before any weight moves: stop, naming the "
          "samples, or skip the step.")
      .choices({"stop", "skip"})
      .synonyms({"terminate_on_nan", "skip_nan"})
      .free_to_change();
  d.field("ema_decay", &F::ema_decay,
          "Keeps a moving average of the weights: average = d * average + (1 - d) * weights.")
      .range(0, 1)
      .synonyms({"ema", "ema.decay", "model_ema_decay", "smoothing"});
  d.field("initial_loss_scale", &F::initial_loss_scale,
          "What fp16 multiplies the loss by at the start; halves on overflow.")
      .at_least(1)
      .when("precision", {"fp16-mixed"})
      .synonyms({"fp16.initial_scale_power", "init_scale", "loss_scale", "scaler"});
  d.field("loss_scale_window", &F::loss_scale_window,
          "Steps without overflow after which the loss scale doubles.")
      .at_least(1)
      .when("precision", {"fp16-mixed"})
      .synonyms({"growth_interval", "fp16.loss_scale_window"});
  return d.section();
}

std::vector<Section> sections() {
  return {LossFields::section(), OptimizerFields::section(), ScheduleFields::section(),
          TrainingFields::section(), ParallelismFields::section()};
}

}  // namespace lehr::step
