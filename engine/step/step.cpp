// One training step as a straight line: forward and backward of each micro-batch, guard, clip,
// update, average. Everything up to the guard leaves the weights alone, so a step can be refused.
#include "engine/step/step.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/base/pulse.h"
#include "engine/step/average.h"
#include "engine/step/culprit.h"
#include "engine/step/groups.h"
#include "engine/step/loss.h"
#include "engine/step/masters.h"
#include "engine/step/micro_graph.h"
#include "engine/step/norm.h"
#include "engine/step/optimizer.h"
#include "engine/step/parts.h"
#include "engine/step/precision.h"
#include "engine/step/ranks.h"
#include "engine/step/schedule.h"
#include "engine/step/shared_batch.h"
#include "models/ops.h"
#include "models/recompute.h"

namespace lehr::step {
namespace {

// Batch statistics as they were before the step: a refused step puts them back, so that one NaN
// does not stay in a running mean for good.
class BufferCopy {
 public:
  explicit BufferCopy(const NamedTensors& buffers) : named_(buffers) {
    for (const auto& b : buffers) {
      live_.push_back(b.tensor);
      copies_.push_back(at::empty_like(b.tensor));
      if (b.tensor.scalar_type() == at::kFloat) statistics_.push_back(b.tensor);
    }
  }
  const Tensors& statistics() const { return statistics_; }
  StringList non_finite() const {
    StringList names;
    for (const auto& [name, tensor] : named_)
      if (!at::isfinite(tensor).all().item<bool>()) names.push_back(name);
    return names;
  }
  void take() { copy(copies_, live_); }
  void put_back() { copy(live_, copies_); }

 private:
  static void copy(Tensors& into, const Tensors& from) {
    c10::NoGradGuard no_grad;
    if (!from.empty()) at::_foreach_copy_(into, from);
  }
  NamedTensors named_;
  Tensors live_, copies_, statistics_;
};

}  // namespace

struct Step::State {
  std::shared_ptr<models::Model> model;
  StepContext context;
  OptimizerFields optimizer_fields;
  ScheduleFields schedule_fields;
  TrainingFields training;
  std::unique_ptr<Loss> loss;
  Schedule schedule;
  Masters masters;
  Groups groups;            // of the masters
  Tensors moving;           // those that are trained, in the order of the groups
  NamedTensors parameters;  // the model's own of them
  std::unique_ptr<Optimizer> optimizer;
  std::optional<Average> average;
  bool optimizer_averages = false;  // in its own pass
  std::optional<at::ScalarType> precision;
  models::Kernels kernels;
  bool in_parts;  // micro-batches may be split among threads
  std::unique_ptr<MicroGraph> graph;
  std::unique_ptr<Ranks> ranks;               // none: one rank, in plain order
  std::unique_ptr<SharedBatch> shared_batch;  // none: batch statistics are each rank's own
  std::vector<size_t> own_rows;      // of `parameters`: those of which the optimizer has rows
  std::map<std::string, Rows> rows;  // which, where not all
  std::function<Counts()> pending_counts;
  std::optional<Counts> counts;  // of the step under way, once known
  // of the next one: this rank's, and where the ranks have added them up already, all
  std::optional<std::vector<Counts>> told_counts;
  std::optional<Counts> next_counts;
  LossScale scale;
  BufferCopy buffers;
  std::function<void()> hook;
  at::Tensor seed;                     // 0-d, on the device: what a backward starts from
  std::unique_ptr<DeviceTimer> timer;  // of a device
  int64_t steps = 0, skipped = 0;

  State(std::shared_ptr<models::Model> m, const FieldSource& fields, const StepContext& c)
      : model(std::move(m)),
        context(c),
        optimizer_fields(fields.get<OptimizerFields>()),
        schedule_fields(fields.get<ScheduleFields>()),
        training(fields.get<TrainingFields>()),
        loss(make_loss(fields.get<LossFields>())),
        schedule(schedule_fields, c.total_steps, c.steps_per_epoch),
        masters(*model, training.precision == "bf16-master"),
        groups(make_groups(masters.weights(), optimizer_fields)),
        precision(compute_dtype(training.precision)),
        kernels(models::kernels_of(training.kernels, c.device)),
        in_parts(dynamic_cast<models::LanguageModel*>(model.get()) &&
                 fields.get<models::RecomputeFields>().mode == "none"),
        scale(training),
        buffers(model->buffers()) {
    for (auto& p : groups.frozen) own(p).set_requires_grad(false);
    for (auto& group : groups.groups)
      for (auto& p : group.parameters) {
        group.copies.push_back(masters.copy_of(p.name));
        moving.push_back(p.tensor);
        parameters.push_back({p.name, own(p).set_requires_grad(true)});
      }
    make_ranks(fields.get<ParallelismFields>());
    optimizer = make_optimizer(optimizer_fields, groups_of_own_rows(), kernels);
    if (training.ema_decay) {
      average.emplace(*training.ema_decay, masters.weights(), groups.frozen);
      Tensors averages;
      for (const auto& p : parameters) averages.push_back(average->of(p.name));
      optimizer_averages = rows.empty() && optimizer->take_averages(averages, *training.ema_decay);
    }
    if (training.cuda_graph && shared_batch)
      throw Error(Code::kRecipe, "a recorded micro-batch cannot sum batch statistics over ranks",
                  "training.cuda_graph", "leave it out, or set parallelism.batch_norm: broadcast");
    if (training.cuda_graph && context.runtime)
      graph = std::make_unique<MicroGraph>(*context.runtime, parameters, model->buffers());
    seed = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(context.device));
    if (context.runtime) timer = context.runtime->timer();
  }

  void make_ranks(const ParallelismFields& parallelism) {
    const bool fixed = parallelism.reduction == "fixed_order";
    if (!context.world && !fixed) return;
    RanksOptions options;
    options.shards = fixed ? parallelism.logical_shards : 0;
    options.zero_stage = fixed ? 0 : parallelism.zero_stage;
    options.shard_degree = parallelism.data_parallel_shard_degree;
    const bool synchronised = !fixed && parallelism.batch_norm == "synchronised" && context.world &&
                              context.world->size() > 1 && !model->buffers().empty();
    if (synchronised) shared_batch = std::make_unique<SharedBatch>(*context.world);
    options.count_backwards = synchronised;
    options.kernels = kernels != models::Kernels::kAten;
    options.runtime = context.runtime;
    options.buckets.order = order_of_forward();
    options.buckets.bytes = parallelism.bucket_mb << 20;
    options.buckets.bf16 = parallelism.compression == "bf16";
    ranks = std::make_unique<Ranks>(context.world ? *context.world : dist::single(), parameters,
                                    model->buffers(), options);
  }

  // What this rank's optimizer moves: all, or its rows.
  std::vector<Group> groups_of_own_rows() {
    if (!ranks || !ranks->shares()) {
      for (size_t i = 0; i < parameters.size(); ++i) own_rows.push_back(i);
      return groups.groups;
    }
    std::vector<Group> own;
    size_t index = 0;
    for (const Group& group : groups.groups) {
      Group& part = own.emplace_back(Group{group.lr_factor, group.weight_decay, {}, {}});
      for (size_t i = 0; i < group.parameters.size(); ++i, ++index) {
        const auto& [name, tensor] = group.parameters[i];
        const Rows mine = rows[name] = ranks->own_rows(tensor);
        if (mine.count == 0) continue;
        const at::Tensor& copy = group.copies[i];
        part.parameters.push_back({name, rows_in(tensor.detach(), mine)});
        part.copies.push_back(copy.defined() ? rows_in(copy.detach(), mine) : copy);
        own_rows.push_back(index);
      }
    }
    return own;
  }

  at::Tensor own(const NamedTensor& weight) const {
    const at::Tensor copy = masters.copy_of(weight.name);
    return copy.defined() ? copy : weight.tensor;
  }

  // Indices of `parameters`, as the model has them.
  std::vector<size_t> order_of_forward() const {
    std::map<std::string, size_t> index;
    for (size_t i = 0; i < parameters.size(); ++i) index[parameters[i].name] = i;
    std::vector<size_t> order;
    for (const auto& p : model->parameters())
      if (const auto found = index.find(p.name); found != index.end())
        order.push_back(found->second);
    return order;
  }

  void clear_gradients() {
    for (auto& p : parameters) p.tensor.mutable_grad().reset();
  }

  double lr() const { return optimizer_fields.lr * schedule.factor(steps); }

  // Sum of the loss over the micro-batch; its gradient, times scale / total weight, is added.
  at::Tensor forward_backward(const Batch& batch) {
    if (graph && divisor().weight > 0 && graph->fits(batch))
      return graph->run(batch, [this](const Batch& b) { return launch(b, /*recorded=*/true); });
    return launch(batch);
  }

  at::Tensor launch(const Batch& batch, bool recorded = false) {
    const int64_t parts = in_parts ? parts_of(batch, parameters) : 1;
    if (parts > 1 && divisor().weight > 0)
      return backward_in_parts(batch, parts, parameters, seed,
                               [this](const Batch& part) { return loss_of(part); });
    if (shared_batch) shared_batch->begin();
    at::Tensor sum = loss_of(batch, recorded);
    if (shared_batch) shared_batch->forward_done();
    // a global batch whose classes all weigh 0 has no mean, hence no gradient
    if (divisor().weight > 0) sum.backward(seed);
    return sum.detach();
  }

  std::vector<Counts> counts_of(const std::vector<Batch>& micro) const {
    std::vector<Counts> mine;
    for (const auto& batch : micro)
      mine.push_back(batch.targets.defined() ? Counts{loss->weight(batch.targets_to_count()),
                                                      static_cast<double>(batch.size())}
                                             : Counts{});
    return mine;
  }

  void begin_counts(const std::vector<Batch>& micro) {
    const std::vector<Counts> mine = counts_of(micro);
    counts.reset();
    const auto told = std::exchange(told_counts, std::nullopt);
    const auto next = std::exchange(next_counts, std::nullopt);
    if (next) {
      if (mine != *told)
        throw Error(Code::kInternal, "a step was given another batch than the one announced");
      pending_counts = [next] { return *next; };
      return;
    }
    if (ranks) {
      pending_counts = ranks->begin_counts(mine);
      return;
    }
    pending_counts = [mine] {
      Counts sum;
      for (const Counts& one : mine) sum.weight += one.weight, sum.samples += one.samples;
      return sum;
    };
  }

  // Known before the first backward, so that a short last micro-batch counts right; over ranks the
  // step before has brought it, or it comes beside the first forward.
  const Counts& divisor() {
    if (!counts) {
      counts = pending_counts();
      if (counts->weight > 0) seed.fill_(scale.value() / counts->weight);
    }
    return *counts;
  }

  // What the backwards so far have left, for each parameter. Several of low precision are summed in
  // float32, and several of a graph, which does not add them up itself.
  void collect(Tensors* gradients, bool several) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor& grad = parameters[i].tensor.mutable_grad();
      at::Tensor& gradient = (*gradients)[i];
      if (!several || (!graph && parameters[i].tensor.scalar_type() == at::kFloat)) {
        gradient = grad;  // which accumulates by itself
      } else if (grad.defined()) {
        gradient = gradient.defined()
                       ? gradient.add_(grad)
                       : grad.to(at::kFloat, /*non_blocking=*/false, /*copy=*/graph != nullptr);
        grad.reset();
      }
    }
  }

  at::Tensor loss_of(const Batch& batch, bool recorded = false) const {
    models::DropoutKey key{context.seed, steps, &batch.samples, recorded};
    struct Keyed {  // also when something below throws
      explicit Keyed(const models::DropoutKey* key) { models::set_dropout_key(key); }
      ~Keyed() { models::set_dropout_key(nullptr); }
    } keyed(&key);
    const models::KernelScope scope(kernels);
    const models::SharedBatchScope shared(shared_batch ? shared_batch->sum() : nullptr);
    return forward_sum(*model, *loss, batch, precision);
  }

  Tensors of_own_rows(const Tensors& gradients) const {
    Tensors own;
    for (size_t i : own_rows) own.push_back(gradients[i]);
    return own;
  }

  // What the first rank that found something says.
  std::string agreed(const Culprit& culprit) {
    if (!ranks || ranks->world().size() == 1) return culprit.text;
    const auto all = ranks->world().gather_text((culprit.found ? "+" : "-") + culprit.text);
    for (size_t r = 0; r < all.size(); ++r)
      if (all[r][0] == '+') return fmt::format("on rank {}, {}", r, all[r].substr(1));
    return all[0].substr(1);
  }

  // Takes the step back: nothing has moved but batch statistics, and those are restored.
  void refuse(std::vector<Batch> micro, const Tensors& gradients, bool forward_is_finite) {
    const StringList statistics = buffers.non_finite();
    buffers.put_back();
    // fp16 overflowed on the way back: expected now and then, and the cure is a smaller scale
    if (forward_is_finite && scale.shrink()) return;
    std::erase_if(micro, [](const Batch& batch) { return !batch.targets.defined(); });
    // also where they have been summed elsewhere
    for (size_t i = 0; i < parameters.size(); ++i)
      parameters[i].tensor.mutable_grad() = gradients[i];
    std::string culprit = agreed(find_culprit(
        {*model, *loss, micro, parameters, precision, {context.seed, steps, nullptr}, statistics}));
    buffers.put_back();
    std::string what = fmt::format("step {}: {}", steps + 1, culprit);
    if (training.non_finite == "stop")
      throw Error(Code::kNonFinite, what, "training.non_finite",
                  "no weight has moved; look at what is named, lower optimizer.lr or set "
                  "training.max_grad_norm, or go on without such steps by `non_finite: skip`");
    log_warning(what + "; the step was skipped");
  }

  // Which batch statistics a micro-batch sums, where this rank has had none yet.
  void learn_sums() {
    if (!context.specimen)
      throw Error(Code::kInternal, "no specimen of a batch to learn the sums of statistics from");
    shared_batch->learn([this] {
      at::Tensor sum = loss_of(context.specimen());
      shared_batch->forward_done();
      sum.backward();
    });
    clear_gradients();
    buffers.put_back();
  }

  // Before a backward. A rank that stands in for a batch which it has not would send its buckets
  // after the sums of the other's batch norms, and that one may wait for a bucket in between: where
  // not all have one, all is sent afterwards.
  void watch(bool last, int64_t round) {
    const bool all_have = !shared_batch || round < divisor().fewest;
    if (ranks->sends_each_backward()) {
      if (all_have) ranks->watch(last);
    } else {
      ranks->watch(last && (!shared_batch || divisor().fewest == divisor().backwards));
    }
  }

  // Forward and backward of each micro-batch: their losses, one each. What the backwards leave is
  // in `gradients`, or with `ranks`.
  Tensors run(const std::vector<Batch>& micro, Tensors* gradients) {
    Tensors losses;
    const bool in_shards = ranks && ranks->fixed_order();
    if (in_shards && divisor().weight == 0) return losses;
    if (in_shards) ranks->begin_shards();
    const bool send_each = ranks && ranks->sends_each_backward();
    const bool several = micro.size() > 1 && !send_each;
    // low precision is summed elsewhere, and a graph's gradients are all there at once
    const bool in_buckets =
        ranks && !in_shards && !graph && (!several || training.precision != "bf16-master");
    int64_t round = 0;
    for (const auto& batch : micro) {
      if (in_buckets) watch(&batch == &micro.back(), round++);
      const bool empty = !batch.targets.defined();
      losses.push_back(empty ? at::zeros_like(seed) : forward_backward(batch));
      get_on();
      if (in_shards) {
        Tensors alone(parameters.size());
        if (!empty) collect(&alone, false);
        ranks->end_shard(alone, losses.back());
        clear_gradients();
        continue;
      }
      collect(gradients, several);
      if (send_each) ranks->end_backward(gradients), clear_gradients();
    }
    // as often as the rank that has most, where that is counted
    for (auto n = static_cast<int64_t>(micro.size()); n < divisor().backwards; ++n) {
      if (shared_batch) {
        if (!shared_batch->knows_sums()) learn_sums();
        shared_batch->stand_in(divisor().weight > 0);
      }
      if (send_each) ranks->end_backward(gradients);
    }
    return losses;
  }

  StepReport take(const std::vector<Batch>& micro, const Aside& aside) {
    StepReport report;
    report.lr = lr();
    report.loss_scale = scale.value();
    begin_counts(micro);
    buffers.take();

    struct Clear {  // also when something below throws
      State& state;
      ~Clear() { state.clear_gradients(); }
    } clear{*this};
    Tensors gradients(parameters.size());
    const auto begin = std::chrono::steady_clock::now();
    if (timer) timer->begin();
    Tensors numbers =
        run(micro, &gradients);  // losses, then the norm, then the guard of statistics
    if (timer) timer->end();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    report.own_seconds = timer ? timer->seconds() : seconds.count();
    const double weight = divisor().weight;
    report.samples = static_cast<int64_t>(divisor().samples);
    if (context.is_text) report.tokens = static_cast<int64_t>(weight);
    if (weight == 0) buffers.put_back();

    Beside beside;
    if (aside) beside = aside(report.own_seconds);
    report.aside = std::move(beside.numbers);
    Ranks::Sums sums;
    if (ranks) {
      const bool has_statistics = shared_batch
                                      ? static_cast<int64_t>(micro.size()) == divisor().backwards
                                      : ranks->world().is_lead();
      if (beside.next) told_counts = counts_of(*beside.next);
      sums = ranks->finish(&gradients, numbers, std::move(report.aside),
                           told_counts ? &*told_counts : nullptr, has_statistics);
      report.aside = std::move(sums.aside), next_counts = sums.next;
    } else {
      numbers.push_back(global_norm(gradients, kernels != models::Kernels::kAten));
      numbers.push_back(zero_if_finite(buffers.statistics()));
      const std::vector<double> values = read(numbers);
      sums.loss = std::accumulate(values.begin(), values.end() - 2, 0.0);
      sums.norm = *(values.end() - 2);
      sums.finite_statistics = std::isfinite(values.back());
    }
    report.grad_norm = sums.norm / scale.value();
    if (weight > 0) report.loss = sums.loss / weight;

    const bool forward_is_finite = std::isfinite(report.loss) && sums.finite_statistics;
    if (!forward_is_finite || !std::isfinite(report.grad_norm)) {
      refuse(micro, gradients, forward_is_finite);
      report.skipped = true;
      ++skipped, ++steps;
      return report;
    }

    if (hook) hook();
    optimizer->update(
        {report.lr, scale.value(), report.grad_norm, training.max_grad_norm.value_or(0)},
        of_own_rows(gradients));
    if (ranks && !ranks->fixed_order()) ranks->share_update(moving);
    if (!rows.empty()) masters.round();
    if (average && !optimizer_averages) average->update();
    scale.grow();
    ++steps;
    return report;
  }
};

Step::Step(std::shared_ptr<models::Model> model, const FieldSource& fields,
           const StepContext& context)
    : state_(std::make_unique<State>(std::move(model), fields, context)) {}

Step::~Step() = default;

StepReport Step::take(const std::vector<Batch>& micro, const Aside& aside) {
  return state_->take(micro, aside);
}

void Step::before_update(std::function<void()> hook) { state_->hook = std::move(hook); }

int64_t Step::steps_taken() const { return state_->steps; }

int64_t Step::steps_skipped() const { return state_->skipped; }

double Step::lr_at(int64_t step) const {
  return state_->optimizer_fields.lr * state_->schedule.factor(step);
}

NamedTensors Step::state() const {
  NamedTensors result;
  for (auto& t : state_->optimizer->state()) result.push_back({"optimizer." + t.name, t.tensor});
  if (state_->average)
    for (auto& t : state_->average->tensors()) result.push_back({"ema." + t.name, t.tensor});
  return result;
}

int64_t Step::sharers() const { return state_->ranks ? state_->ranks->sharers() : 1; }

std::map<std::string, Rows> Step::rows() const {
  std::map<std::string, Rows> rows;
  if (state_->rows.empty()) return rows;
  for (const auto& t : state_->optimizer->state())  // "exp_avg.fc.weight"
    rows["optimizer." + t.name] = state_->rows.at(t.name.substr(t.name.find('.') + 1));
  return rows;
}

std::string Step::scalars() const {
  return nlohmann::json{{"steps", state_->steps},
                        {"updates", state_->optimizer->updates()},
                        {"skipped", state_->skipped},
                        {"loss_scale", state_->scale.value()},
                        {"good_steps", state_->scale.good_steps()}}
      .dump();
}

void Step::restore_scalars(const std::string& json) {
  try {
    auto values = nlohmann::json::parse(json);
    state_->steps = values.at("steps").get<int64_t>();
    state_->optimizer->set_updates(values.at("updates").get<int64_t>());
    state_->skipped = values.at("skipped").get<int64_t>();
    state_->scale.restore(values.at("loss_scale").get<double>(),
                          values.at("good_steps").get<int64_t>());
  } catch (const nlohmann::json::exception& e) {
    throw Error(Code::kCheckpoint, fmt::format("the scalars of the step do not read: {}", e.what()),
                "", "the checkpoint is of another version, or damaged");
  }
}

NamedTensors Step::weights() const { return state_->masters.weights(); }

void Step::in_float32(const std::function<void()>& work) { state_->masters.in_float32(work); }

NamedTensors Step::averaged() const {
  return state_->average ? state_->average->tensors() : NamedTensors{};
}

std::string Step::describe() const {
  const State& s = *state_;
  std::string text = fmt::format("{}, lr {} {}", s.optimizer_fields.name, s.optimizer_fields.lr,
                                 s.schedule_fields.name);
  if (s.schedule.warmup_steps() > 0)
    text += fmt::format(" after {} steps of warm-up", s.schedule.warmup_steps());
  text += "; " + step::describe(s.groups, s.optimizer_fields);
  if (s.training.max_grad_norm)
    text += fmt::format("; clipped to norm {}", *s.training.max_grad_norm);
  if (s.average) text += fmt::format("; weights averaged with {}", *s.training.ema_decay);
  if (s.training.precision != "fp32") text += "; " + s.training.precision;
  return text;
}

StepBytes step_bytes(const FieldSource& fields, const NamedTensors& parameters, int64_t ranks,
                     int64_t micro_batches) {
  const auto training = fields.get<TrainingFields>();
  const auto parallelism = fields.get<ParallelismFields>();
  const int64_t degree =
      shard_degree(parallelism.zero_stage, parallelism.data_parallel_shard_degree, ranks);
  double all = 0, own = 0, largest = 0;
  for (const auto& p : parameters) {
    const double bytes = 4.0 * static_cast<double>(p.tensor.numel());
    const Rows rows = part_of(p.tensor, degree, 0);  // nobody has more than the first
    all += bytes;
    if (rows.of > 0) own += bytes * static_cast<double>(rows.count) / static_cast<double>(rows.of);
    largest = std::max(largest, bytes);
  }
  const bool low = training.precision == "bf16-master";
  StepBytes bytes;
  bytes.weights = low ? 1.5 * all : all;
  bytes.state = state_tensors(fields.get<OptimizerFields>()) * own + (training.ema_decay ? all : 0);
  // what inner backwards leave stays; low precision is summed in float32 beside what is made
  const bool several = micro_batches > 1;
  const double held = low && several ? 1.5 * all : all;
  if (degree > 1) {
    // a bucket that fills, and two under way
    const double bucket = std::max(largest, static_cast<double>(parallelism.bucket_mb << 20));
    bytes.gradients = own + std::min(all, 3 * bucket);
    if (several && parallelism.zero_stage == 1) bytes.gradients += held;
  } else if (ranks > 1) {
    bytes.gradients = low && several ? held + all : all;
  } else {
    bytes.gradients = low && !several ? 0.5 * all : held;
  }
  return bytes;
}

}  // namespace lehr::step
