// Takes one batch and moves the weights once: forward, loss, backward, guard, clip, update,
// average.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/batch.h"
#include "engine/base/device.h"
#include "engine/base/fields.h"
#include "engine/base/named_tensor.h"
#include "engine/base/rows.h"
#include "engine/dist/world.h"
#include "engine/step/fields.h"
#include "models/model.h"

namespace lehr::step {

struct StepContext {
  int64_t total_steps = 0;  // of the whole training, for schedules; 0 when unknown
  int64_t steps_per_epoch = 0;
  at::Device device = at::kCPU;
  uint64_t seed = 0;
  bool is_text = false;
  DeviceRuntime* runtime = nullptr;  // of a GPU
  dist::World* world = nullptr;      // the ranks that share each step; nullptr: one
  // Any batch, on the device, whose values do not matter: shows a rank that has no sample which
  // batch statistics the others sum. Only for `parallelism.batch_norm: synchronised`.
  std::function<Batch()> specimen;
};

struct StepReport {
  double loss = 0;       // weighted mean over the step's samples
  double grad_norm = 0;  // global, before clipping
  double lr = 0;
  double loss_scale = 1;
  int64_t samples = 0;
  int64_t tokens = 0;         // of text: those that count
  double own_seconds = 0;     // forward and backward of this rank alone; of a device, in the step
                              // before, since nobody waits for it
  bool skipped = false;       // non-finite, or fp16 scale was lowered: no weight moved
  std::vector<double> aside;  // summed over the ranks
};

// What travels with the sum that the ranks make at a step's end, so that nobody waits twice; asked
// for when this rank's backwards are done, which took `own_seconds`.
struct Beside {
  std::vector<double> numbers;  // to be added up
  // What the next take() will be given, so that its divisor is known without a sum of its own;
  // nullptr: not known yet.
  const std::vector<Batch>* next = nullptr;
};
using Aside = std::function<Beside(double own_seconds)>;

class Step {
 public:
  // Reads sections optimizer, lr_scheduler, loss, training. Throws Error{kRecipe} for
  // contradictions.
  Step(std::shared_ptr<models::Model> model, const FieldSource& fields, const StepContext& context);
  ~Step();
  // One update from the micro-batches of one global batch (of each rank: its own part, which may be
  // empty; where all are, no weight moves); normalised by the samples (or class weights) of all of
  // them, so k micro-batches, or k ranks, give what one batch gives. Throws Error{kNonFinite}
  // naming the samples under `non_finite: stop`, before any weight has moved; Error{kInternal} for
  // another batch than the call before was told of.
  StepReport take(const std::vector<Batch>& micro, const Aside& aside = {});
  // Called inside take() right before the first write to a weight or optimizer tensor; a checkpoint
  // in flight finishes its copies here. Batch-norm buffers and nothing else change before it.
  void before_update(std::function<void()> hook);

  int64_t steps_taken() const;
  int64_t steps_skipped() const;  // of those: refused, whose update was not made
  double lr_at(int64_t step) const;
  // Every parameter in float32, the truth of a checkpoint: the model's own, or what they are
  // rounded from under bf16-master. To change them, or to use the model in float32: within
  // in_float32.
  NamedTensors weights() const;
  void in_float32(const std::function<void()>& work);
  // Optimizer and EMA tensors by name ("optimizer.exp_avg.fc.weight", "ema.fc.weight"), and scalars
  // (steps taken, loss scale, growth tracker, skipped steps) as JSON text.
  NamedTensors state() const;
  // Of the tensors of state() of which this rank holds some rows only, which; of other ranks, those
  // that come after it, or before, among the `parallelism.data_parallel_shard_degree` that share.
  std::map<std::string, Rows> rows() const;
  int64_t sharers() const;  // how many ranks together hold one copy of it; the first ones hold one
  std::string scalars() const;
  // After the tensors of state() have been overwritten in place.
  void restore_scalars(const std::string& json);
  // EMA weights by parameter name; empty without training.ema_decay.
  NamedTensors averaged() const;
  // One line for the log: groups, what is decayed and what not, what is frozen.
  std::string describe() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Logits per sample that a loss wants for this data: classes, 1 for binary cross-entropy, or
// values.
int64_t output_count(const FieldSource& fields, int64_t classes, int64_t values);
// What predictions mean under the recipe's loss: scores for metrics from model outputs.
//   cross-entropy: softmax [B, C]; binary: sigmoid [B] of class 1 -> [B, 2]; regression: as they
//   are
at::Tensor to_scores(const FieldSource& fields, const at::Tensor& outputs);
// A forward in the model's present mode, in fp32: the sum of the loss, what it is divided by, and
// the model's outputs (undefined for a language model, whose logits are never all held). Of a
// language model the loss is the cross-entropy alone: nats per token, without label_smoothing and
// z_loss.
struct Evaluated {
  double sum = 0, weight = 0;
  at::Tensor outputs;
};
Evaluated evaluate_batch(const FieldSource& fields, models::Model& model, const Batch& batch);
// "the output is not finite for sample 41": the first such sample of the batch, by input, target,
// output or loss, in the model's present mode; "" for none. Slow: for when something is known to be
// wrong.
std::string first_non_finite(const FieldSource& fields, models::Model& model, const Batch& batch);
// What a rank holds of tensors while it trains, for `lehr check`: weights (with the model's own
// under bf16-master), gradients at their most, optimizer state with averages. `parameters`: those
// that are trained, on any device; `micro_batches`: of a step on each rank.
struct StepBytes {
  double weights = 0, gradients = 0, state = 0;
};
StepBytes step_bytes(const FieldSource& fields, const NamedTensors& parameters, int64_t ranks = 1,
                     int64_t micro_batches = 1);

std::vector<Section> sections();

}  // namespace lehr::step
