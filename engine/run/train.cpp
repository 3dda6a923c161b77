#include "engine/run/train.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <fstream>
#include <optional>

#include "engine/base/cores.h"
#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/base/pulse.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/names.h"
#include "engine/checkpoint/saver.h"
#include "engine/data/fields.h"
#include "engine/data/loader.h"
#include "engine/dist/world.h"
#include "engine/run/beats.h"
#include "engine/run/contradictions.h"
#include "engine/run/evaluate.h"
#include "engine/run/facts.h"
#include "engine/run/finish.h"
#include "engine/run/launch.h"
#include "engine/run/micro_batches.h"
#include "engine/run/plan.h"
#include "engine/run/replicas.h"
#include "engine/run/speed.h"
#include "engine/run/stop.h"
#include "engine/run/stragglers.h"
#include "engine/step/fields.h"
#include "engine/step/step.h"
#include "engine/track/fields.h"
#include "engine/track/profiler.h"
#include "engine/track/trace.h"
#include "models/ops.h"

namespace lehr::run {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

int64_t resident_bytes() {
  int64_t pages = 0, ignored = 0;
  std::ifstream("/proc/self/statm") >> ignored >> pages;
  return pages * ::sysconf(_SC_PAGESIZE);
}

class Training {
 public:
  Training(const TrainRequest& request, track::Terminal& terminal, const dist::Place& place)
      : request_(request), terminal_(terminal), place_(place), watch_(place.rank, place.size) {}
  Code run();

 private:
  void open();
  void open_world(const recipe::Recipe& recipe);
  step::Beside facts(double own_seconds);
  void heed(const std::vector<double>& facts);
  NamedTensors replicated() const;
  void keep_threads(const Surroundings& then);
  void restore_or_start();
  void settle_best(const recipe::Recipe& then, bool own, const std::string& path);
  std::string order_of_sums_then(const checkpoint::Loaded& loaded,
                                 const recipe::Recipe& then) const;
  void loop();
  data::StepBatch next_batch();
  step::StepReport take_step(const data::StepBatch& batch, double load_seconds);
  bool evaluate_now();
  static constexpr size_t kFacts = 3 + std::tuple_size_v<Replicas::Numbers>;
  enum class Save { kBeside, kAndWait };  // the steps that follow; at the end
  void save(Save how = Save::kBeside);
  void restate();
  void log_step(const step::StepReport& report);
  void write_row();
  void show_progress();
  void compare_with_replay();
  const char* why_ended() const;
  bool reached_end() const { return why_ended() != nullptr; }
  const char* why_stop() const;
  void count_bad(const data::StepBatch& batch, const step::StepReport& report);
  void end_with_data_error();
  std::string facts_to_save() const;
  std::string command_that_continues() const;
  Code finish();

  bool is_lead() const { return world_->is_lead(); }
  // A phase of the loop, of the last step or the one under way: in the trace that `profiling`
  // writes, and in what is said of this rank when it stands still or something fails.
  void enter(const char* name, bool is_under_way = false) {
    const int64_t step = progress_.step + (is_under_way ? 1 : 0);
    world_->enter(name, step);
    enter_phase(name, step);
  }
  [[nodiscard]] auto phase(const char* name, bool is_under_way = false) {
    enter(name, is_under_way);
    return track::Trace::span(name);
  }

  const TrainRequest& request_;
  track::Terminal& terminal_;
  const Clock::time_point begin_ = Clock::now();

  DeviceRuntime* device_ = nullptr;
  std::string device_name_;
  const dist::Place place_;
  Watch watch_;
  std::unique_ptr<dist::World> ranks_;  // none for one rank
  dist::World* world_ = &dist::single();
  RunFolder folder_;
  std::unique_ptr<Parts> parts_;
  Surroundings around_;
  std::shared_ptr<models::Model> model_;
  std::unique_ptr<step::Step> step_;
  std::unique_ptr<checkpoint::Saver> saver_;
  std::unique_ptr<Replicas> replicas_;  // after saver_, which may wait for what it finds
  std::unique_ptr<data::Loader> loader_;
  std::unique_ptr<track::Profiler> profiler_;
  track::Trackers trackers_;

  Progress progress_;
  double earlier_seconds_ = 0;  // of earlier invocations
  std::optional<Duration> time_limit_, max_time_;
  int64_t log_steps_ = 1;
  int64_t saved_step_ = -1;
  bool stepped_ = false, stepped_log_ = false;  // in this invocation
  Clock::time_point last_save_ = Clock::now();
  Clock::time_point interval_begin_ = Clock::now();
  int64_t interval_samples_now_ = 0;  // of this invocation, for the rate
  track::Values row_values_;          // of the step under way
  const char* stop_ = nullptr;        // why all ranks stop after this step
  std::exception_ptr data_error_;     // this rank cannot go on: all save, then end with it
  bool save_by_time_ = false;
  std::optional<LeaveWhenAsked> starting_;
  Stragglers stragglers_;
  Clock::time_point loop_begin_ = Clock::now(), memory_read_;
  int64_t memory_bytes_ = 0;
  double rate_ = 0, last_lr_ = 0;
  std::optional<double> last_loss_;  // none: no step of the interval has one
  std::string non_finite_;           // what the newest evaluation found
  bool speed_of_light_ = false;
  double mfu_per_rate_ = 0;  // model FLOPs utilisation at one sample a second; 0: no known peak
  std::vector<double>
      rates_;  // for `speed_of_light`: of every interval but the first, which warms up
};

Code Training::run() try {
  enter_phase("start", 0);
  starting_.emplace(" before the first step; nothing is lost. The same command continues.");
  open();
  if (folder_.finished) return Code::kOk;
  restore_or_start();
  loop();
  return finish();
} catch (const Error& error) {
  leave_nothing(folder_);
  if (parts_) throw parts_->recipe.placed(error);
  throw;
}

// recipe, folder, device, data, model, step
void Training::open() {
  recipe::Recipe recipe = load_recipe(request_.recipe, request_.overrides);
  const auto ranks = recipe.get<step::ParallelismFields>();
  watch_.set({ranks.heartbeat.value, ranks.timeout.value});
  const auto training = recipe.get<TrainingFields>();
  max_time_ = training.max_time, time_limit_ = recipe.get<JobFields>().time_limit;
  if (training.device != "cpu") see_own_gpu(place_.local_rank, place_.local_size);
  device_name_ = choose_device(training, &device_);
  const int64_t threads = settle_numerics(training, place_.local_size);
  check_contradictions(recipe, place_.size);
  open_world(recipe);
  FolderRequest which = request_.folder;
  // under `lehr launch` the folder of what has begun is named
  which.again = place_.attempt != "0" && (place_.launcher != "lehr launch" || !which.run.empty());
  if (is_lead()) folder_ = choose_run_folder(recipe, which);
  folder_.path = world_->broadcast_text(folder_.path);
  if (is_lead()) tell_launcher_folder(folder_.path);
  folder_.finished = world_->any(folder_.finished);
  if (folder_.finished) {
    if (is_lead()) terminal_.print(nothing_more(folder_, recipe));
    return;
  }
  parts_ = std::make_unique<Parts>(open_parts(recipe, world_->size()));
  world_->require_same("data set", parts_->dataset->info().fingerprint);
  check_monitor(recipe, parts_->dataset->info());
  around_ = surroundings(device_ ? device_->devices().at(0).name : "cpu", threads,
                         parts_->dataset->info().fingerprint, world_->size());
  around_.vocabulary = parts_->context.vocabulary;
  const at::Device device(device_ ? device_->type() : at::kCPU);
  parts_->context.options = parts_->context.options.device(device);
  model_ = models::make_model(recipe, parts_->context);
  if (const std::string warning = check_batch_norm(*parts_, world_->size());
      is_lead() && !warning.empty())
    log_warning(warning);

  step::StepContext context;
  context.total_steps = parts_->plan.total_steps;
  context.steps_per_epoch = parts_->plan.steps_per_epoch;
  context.device = device;
  context.runtime = device_;
  context.world = ranks_.get();
  context.seed = parts_->context.seed;
  context.is_text = parts_->dataset->info().is_text;
  context.specimen = [this, device] {
    Batch batch = parts_->dataset->allocate(2);
    for (at::Tensor* t : {&batch.inputs, &batch.targets, &batch.segments})
      if (t->defined()) *t = t->zero_().to(device);
    batch.samples = {0, 1};
    return batch;
  };
  step_ = std::make_unique<step::Step>(model_, recipe, context);

  const auto checkpoint = recipe.get<checkpoint::CheckpointFields>();
  checkpoint::Retention retention;
  retention.keep_latest_k = checkpoint.keep_latest_k;
  retention.keep_best_k = checkpoint.keep_best_k;
  retention.keep_every = checkpoint.keep_every;
  retention.larger_is_better = parts_->plan.larger_is_better;
  retention.monitor = recipe.get<ValidationFields>().monitor;
  make_folders(folder_.checkpoints());
  saver_ = std::make_unique<checkpoint::Saver>(folder_.checkpoints(), retention, device_);
  replicas_ = std::make_unique<Replicas>(*world_, device_);
  step_->before_update([this] {
    saver_->finish_copy();
    replicas_->finish_reading();
  });

  const auto data = recipe.get<data::DataFields>();
  data::LoaderOptions options;
  options.global_batch = parts_->plan.global_batch;
  options.micro_batch = parts_->plan.micro_batch;
  options.drop_last = data.drop_last;
  options.threads = static_cast<int>(data.threads);
  options.prefetch = data.prefetch;
  options.seed = parts_->context.seed;
  options.device = device_;
  options.rank = world_->rank(), options.world = world_->size();
  options.shards = parts_->plan.shards;
  loader_ = std::make_unique<data::Loader>(parts_->dataset, options);

  const auto tracking = recipe.get<track::TrackFields>();
  log_steps_ = std::max<int64_t>(1, in_steps(tracking.log_interval, parts_->plan));
  const std::string precision = recipe.get<step::TrainingFields>().precision;
  if (const double peak = peak_flops(around_.device, precision, training.tf32); peak > 0)
    mfu_per_rate_ = flops_per_sample(*parts_) / peak;
  auto profiling = recipe.get<track::ProfilingFields>();
  profiling.enabled = profiling.enabled && is_lead();
  speed_of_light_ = profiling.speed_of_light;
  profiler_ = track::make_profiler(profiling, folder_.path, device_ != nullptr);
}

void Training::open_world(const recipe::Recipe& recipe) {
  if (place_.size == 1) return;
  const auto parallelism = recipe.get<step::ParallelismFields>();
  const double timeout = parallelism.timeout.value, heartbeat = parallelism.heartbeat.value;
  ranks_ = dist::open_world(place_, {timeout, heartbeat, device_});
  world_ = ranks_.get();
  world_->require_same("build", build_stamp());
  world_->require_same("recipe", recipe.hash());
  // of more ranks than a node has GPUs some would find none
  world_->require_same("device", device_name_);
  if (device_) world_->sum(at::zeros({1}, device_->type()));  // connects now, not in the first step
}

// What makes the sums over ranks others than those of the checkpoint; "" for nothing.
std::string Training::order_of_sums_then(const checkpoint::Loaded& loaded,
                                         const recipe::Recipe& then) const {
  if (parts_->plan.shards > 0) return "";
  const int64_t ranks_then = surroundings_of(loaded.facts).world, ranks = world_->size();
  if (ranks_then != ranks) return fmt::format("{} rank(s) then, {} now", ranks_then, ranks);
  const auto before = then.get<step::ParallelismFields>();
  const auto now = parts_->recipe.get<step::ParallelismFields>();
  if (ranks == 1 || (before.zero_stage == now.zero_stage &&
                     before.data_parallel_shard_degree == now.data_parallel_shard_degree))
    return "";
  return "the ranks shared the optimizer's state otherwise then";
}

// Threads that nobody set are those of the checkpoint, where this machine has as many: a resume in
// another container is exact.
void Training::keep_threads(const Surroundings& then) {
  if (device_ || parts_->recipe.get<TrainingFields>().threads > 0) return;
  if (then.threads == around_.threads || then.threads * place_.local_size > own_cores()) return;
  at::set_num_threads(static_cast<int>(then.threads));
  around_.threads = then.threads;
}

void Training::restore_or_start() {
  const recipe::Recipe& recipe = parts_->recipe;
  const auto fields = recipe.get<checkpoint::CheckpointFields>();
  std::optional<checkpoint::Loaded> loaded;
  std::string newest;
  if (is_lead()) {
    loaded = checkpoint::claim_newest(folder_.checkpoints(), *folder_.lock,
                                      [](const std::string& problem) { log_warning(problem); });
    // a path is where a run begins; what it saved itself since comes first
    if (!loaded && fields.resume != "auto" && fields.resume != "never")
      loaded = load_from(fields.resume);
    if (loaded) newest = loaded->path;
  }
  // which one, the lead alone decides
  newest = world_->broadcast_text(newest);
  if (!newest.empty() && !loaded) loaded = checkpoint::load(newest, step_->rows());
  if (loaded) {
    const auto then = stored_recipe(loaded->texts.at("recipe.yaml"), loaded->path + "/recipe.yaml",
                                    {}, recipe.folder());
    keep_threads(surroundings_of(loaded->facts));
    const auto changed = differences(loaded->facts, around_, then, recipe);
    if (!changed.empty()) {
      const std::string list = fmt::format("{}", fmt::join(changed, "\n  "));
      if (!request_.allow_approximate_resume) {
        pulse().incurable = true;
        throw Error(
            Code::kCheckpoint,
            "this run cannot go on exactly, because something differs:\n  " + list, loaded->path,
            "put it back, begin anew with --fresh, or accept it with --allow-approximate-resume");
      }
      log_warning("resuming although something differs, so bits will too:\n  " + list);
    }
    NamedTensors weights = step_->weights();
    for (auto& buffer : model_->buffers()) weights.push_back(buffer);
    step_->in_float32([&] { checkpoint::restore(*loaded->shards.at("weights"), weights); });
    checkpoint::restore(*loaded, "state", step_->state(), step_->rows());
    step_->restore_scalars(step_scalars_of(loaded->facts));
    progress_ = progress_of(loaded->facts);
    if (const std::string other = order_of_sums_then(*loaded, then); !other.empty())
      log_warning(other +
                  ": the samples go on exactly where they were, and sums are taken in "
                  "another order, so bits differ");
    earlier_seconds_ = progress_.train_seconds;
    const bool own = loaded->path.starts_with(folder_.checkpoints() + "/");
    if (own) saved_step_ = progress_.step;
    settle_best(then, own, loaded->path);
    terminal_.print(fmt::format("{}: continuing after step {} ({} samples)", folder_.path,
                                progress_.step, progress_.samples));
    for (const auto& field : then.differences(recipe))
      if (!field.exact) terminal_.print("  from here on " + field.text());
  } else {
    step_->in_float32([&] { initialize_from(recipe, *model_, *world_); });
    terminal_.print(fmt::format("{}: beginning", folder_.path));
    if (!folder_.note.empty()) terminal_.print("  " + folder_.note);
  }
  loader_->seek(progress_.samples);
  replicas_->require_same(replicated(), progress_.step);
  if (!is_lead()) return;
  // a run goes on where a full disk would not even take its recipe again
  if (const std::string file = folder_.file("recipe.yaml");
      !file_exists(file) || read_file(file) != recipe.resolved())
    write_file_durably(file, recipe.resolved());
  log_to_file(folder_.file("log.txt"));
  const auto tracking = recipe.get<track::TrackFields>();
  const int64_t resume_step = progress_.step;
  trackers_.add([path = folder_.file("metrics.jsonl"), resume_step] {
    return track::open_jsonl(path, resume_step);
  });
  for (const auto& name : tracking.report_to)
    if (name == "tensorboard")
      trackers_.add([path = folder_.file("tensorboard"), resume_step] {
        return track::open_tensorboard(path, resume_step);
      });
  int64_t parameters = 0;
  for (const auto& p : model_->parameters()) parameters += p.tensor.numel();
  const auto& info = parts_->dataset->info();
  terminal_.print(fmt::format(
      "model {}: {} parameters; data: {} training, {} validation, {} test samples, {}; {} steps of "
      "{} samples on {} "
      "with {} thread(s){}",
      recipe.get<models::ModelFields>().name, parameters,
      parts_->dataset->size(data::Split::kTrain), parts_->dataset->size(data::Split::kValidation),
      parts_->dataset->size(data::Split::kTest),
      info.is_text           ? fmt::format("{} kinds of tokens{}", info.vocabulary,
                                 parts_->context.vocabulary > info.vocabulary
                                               ? fmt::format(" of {} rows", parts_->context.vocabulary)
                                               : "")
      : info.classes.empty() ? fmt::format("{} value(s)", info.values)
                             : fmt::format("{} classes", info.classes.size()),
      parts_->plan.total_steps, parts_->plan.global_batch, around_.device, around_.threads,
      world_->size() == 1
          ? ""
          : fmt::format(" on each of {} ranks ({})", world_->size(), place_.launcher)));
  if (is_lead())
    for (const auto& line : parts_->dataset->remarks()) log_info("data: " + line);
  terminal_.print(step_->describe());
}

// What is best so far, where it is of another monitor than now, or lies in another run.
void Training::settle_best(const recipe::Recipe& then, bool own, const std::string& path) {
  const auto before = then.get<ValidationFields>();
  const auto now = parts_->recipe.get<ValidationFields>();
  if (progress_.monitored.empty()) progress_.monitored = before.monitor;
  const bool other = progress_.monitored != now.monitor ||
                     larger_is_better(before) != parts_->plan.larger_is_better;
  if (progress_.best && (other || !own))
    terminal_.print(fmt::format(
        "the best so far, step {} with {} {:.6g}{}, no longer counts: {}", progress_.best_step,
        progress_.monitored, *progress_.best, own ? "" : " in " + path,
        other ? fmt::format("{} is what counts now", now.monitor) : "it is another run's"));
  if (other || !own) progress_.best.reset(), progress_.best_step = progress_.evaluated_step = -1;
  if (other)
    progress_.improved.reset(), progress_.bad_evaluations = 0, progress_.ended_early = false;
  progress_.monitored = now.monitor;
}

void Training::compare_with_replay() {
  if (rates_.empty()) return;
  std::nth_element(rates_.begin(), rates_.begin() + static_cast<std::ptrdiff_t>(rates_.size() / 2),
                   rates_.end());
  const double step = static_cast<double>(parts_->plan.global_batch) / rates_[rates_.size() / 2];
  const double replay =
      replay_seconds(*parts_, parts_->recipe.get<step::TrainingFields>().precision, device_);
  terminal_.print(
      fmt::format("speed of light: {:.2f} (a step takes {:.2f} ms; its products alone, {:.2f} ms)",
                  replay / step, step * 1e3, replay * 1e3));
}

// The field that ends this training, or nullptr.
const char* Training::why_ended() const {
  if (progress_.ended_early) return "early_stopping.patience";
  const auto training = parts_->recipe.get<TrainingFields>();
  if (progress_.step >= parts_->plan.total_steps)
    return training.max_steps == parts_->plan.total_steps ? "training.max_steps"
                                                          : "training.max_epochs";
  return max_time_ && progress_.train_seconds >= max_time_->value ? "training.max_time" : nullptr;
}

// What depends on this process' clock and signals is decided for all ranks together: the lead's
// clock counts, and anyone's signal. `own_seconds`: this rank's own work of the step under way.
step::Beside Training::facts(double own_seconds) {
  step::Beside beside;
  // what the next step would end at is known while all can still stop together
  const auto asked = Clock::now();
  if (!data_error_ && progress_.step + 1 < parts_->plan.total_steps) {
    const auto span = phase("load", true);
    try {
      beside.next = &loader_->peek()->micro;
    } catch (...) {
      data_error_ = std::current_exception();
    }
    enter("step", true);
  }
  own_seconds += seconds_since(asked);
  stop_ = why_stop();
  save_by_time_ =
      parts_->plan.checkpoint_s > 0 && seconds_since(last_save_) >= parts_->plan.checkpoint_s;
  progress_.train_seconds = earlier_seconds_ + seconds_since(loop_begin_);
  if (!ranks_) return beside;
  std::vector<double>& facts = beside.numbers;
  facts.resize(kFacts + static_cast<size_t>(world_->size()));
  facts[0] = stop_ ? 1 : 0;
  if (is_lead()) facts[1] = save_by_time_ ? 1 : 0, facts[2] = progress_.train_seconds;
  const Replicas::Numbers digest = replicas_->tell();
  std::copy(digest.begin(), digest.end(), facts.begin() + 3);
  facts[kFacts + static_cast<size_t>(world_->rank())] = own_seconds;
  return beside;
}

// `facts`: of all ranks, summed.
void Training::heed(const std::vector<double>& facts) {
  if (facts.empty()) return;
  if (!stop_ && facts[0] > 0) stop_ = "another rank";
  save_by_time_ = facts[1] > 0;
  progress_.train_seconds = facts[2];
  replicas_->hear(&facts[3]);
  if (!is_lead()) return;
  if (const std::string slow = stragglers_.note({facts.begin() + kFacts, facts.end()});
      !slow.empty())
    log_warning(slow);
}

// What all ranks have alike: memory that has changed by itself shows there.
NamedTensors Training::replicated() const {
  NamedTensors all = step_->weights();
  const auto rows = step_->rows();
  for (auto& t : step_->state())
    if (!rows.contains(t.name)) all.push_back(t);
  return all;
}

const char* Training::why_stop() const {
  if (const char* signal = stop_requested()) return signal;
  if (data_error_) return "a data error";
  // however short the limit is, an invocation gets on by a step
  const bool is_over = time_limit_ && stepped_ && seconds_since(begin_) >= time_limit_->value;
  return is_over ? "job.time_limit" : nullptr;
}

data::StepBatch Training::next_batch() {
  const auto span = phase("load", true);
  return loader_->next();
}

step::StepReport Training::take_step(const data::StepBatch& batch, double load_seconds) {
  const auto span = phase("step", true);
  return step_->take(batch.micro, [&](double seconds) { return facts(load_seconds + seconds); });
}

void Training::loop() {
  const Plan& plan = parts_->plan;
  loop_begin_ = interval_begin_ = last_save_ = Clock::now();
  stop_ = why_stop();
  if (world_->any(stop_ != nullptr) && !stop_) stop_ = "another rank";
  starting_.reset();
  if (!stop_ && progress_.evaluation_cut && evaluate_now()) {
    write_row();
    if (progress_.best_step == progress_.step) save();  // of another run's checkpoint
    restate();
  }
  while (!reached_end() && !stop_) {
    profiler_->step_begins(progress_.step + 1);
    const auto load_begin = Clock::now();
    const data::StepBatch batch = next_batch();
    const double load_seconds = seconds_since(load_begin);
    stepped_ = true;
    const step::StepReport report = take_step(batch, load_seconds);
    ++progress_.step;
    progress_.samples += batch.samples;
    heed(report.aside);
    count_bad(batch, report);
    if (!ranks_) stop_ = why_stop();
    log_step(report);
    show_progress();
    const bool evaluation_due =
        plan.validation_steps > 0 && progress_.step % plan.validation_steps == 0;
    if (evaluation_due || reached_end()) evaluate_now();
    write_row();
    const bool due = plan.checkpoint_steps > 0 && progress_.step % plan.checkpoint_steps == 0;
    const bool best_now = progress_.best_step == progress_.step;
    if (due || save_by_time_ || best_now) save(reached_end() ? Save::kAndWait : Save::kBeside);
    profiler_->step_ends(progress_.step);
    // evaluating and saving take long; ranks learn of it together, after a step
    if (!ranks_) stop_ = why_stop();
  }
}

// What the step has left out, over all ranks: the same on any number of them.
void Training::count_bad(const data::StepBatch& batch, const step::StepReport& report) {
  if (batch.position % parts_->plan.samples_per_epoch == 0) progress_.bad_samples = 0;
  progress_.bad_samples += batch.samples - report.samples;
  if (progress_.bad_samples == 0) return;
  progress_.most_bad_samples = std::max(progress_.most_bad_samples, progress_.bad_samples);
  try {
    check_bad_samples(*parts_, progress_.bad_samples, "this epoch");
  } catch (const Error&) {
    data_error_ = std::current_exception();
    stop_ = why_stop();
  }
}

// one row a logging interval; its loss is the mean over the interval's samples
void Training::log_step(const step::StepReport& report) {
  if (!report.skipped) {
    progress_.interval_loss += report.loss * static_cast<double>(report.samples);
    progress_.interval_samples += report.samples;
  }
  interval_samples_now_ += report.samples;
  last_lr_ = report.lr;
  if (progress_.step % log_steps_ != 0 && progress_.step != parts_->plan.total_steps) return;
  const double seconds = seconds_since(interval_begin_);
  if (seconds > 0) rate_ = static_cast<double>(interval_samples_now_) / seconds;
  if (progress_.interval_samples > 0)
    last_loss_ = progress_.interval_loss / static_cast<double>(progress_.interval_samples);
  else
    last_loss_.reset();
  if (last_loss_) row_values_.emplace_back("train.loss", *last_loss_);
  row_values_.emplace_back("train.lr", report.lr);
  if (!report.skipped) row_values_.emplace_back("train.grad_norm", report.grad_norm);
  row_values_.emplace_back("train.samples_per_s", rate_);
  if (const int64_t skipped = step_->steps_skipped(); skipped > 0)
    row_values_.emplace_back("train.skipped_steps", static_cast<double>(skipped));
  if (const auto& info = parts_->dataset->info(); info.is_text)
    row_values_.emplace_back("train.tokens_per_s", rate_ * static_cast<double>(info.context));
  if (mfu_per_rate_ > 0) row_values_.emplace_back("train.mfu", rate_ * mfu_per_rate_);
  if (stepped_log_ && speed_of_light_) rates_.push_back(rate_);
  stepped_log_ = true;
  if (report.loss_scale != 1) row_values_.emplace_back("train.loss_scale", report.loss_scale);
  progress_.interval_loss = 0;
  progress_.interval_samples = 0;
  interval_samples_now_ = 0;
  interval_begin_ = Clock::now();
}

// at most one row a step
void Training::write_row() {
  if (row_values_.empty()) return;
  const auto span = phase("report");
  if (!is_lead()) return row_values_.clear();
  const track::Row row{progress_.step, progress_.samples, unix_time(), std::move(row_values_)};
  trackers_.write(row);
  row_values_.clear();
}

void Training::show_progress() {
  if (!is_lead()) return;
  track::Progress p;
  p.step = progress_.step;
  p.total_steps = parts_->plan.total_steps;
  p.epoch = progress_.samples / parts_->plan.samples_per_epoch;
  p.epochs_total =
      static_cast<double>(p.total_steps) / static_cast<double>(parts_->plan.steps_per_epoch);
  p.samples_per_s = rate_;
  p.loss = last_loss_.value_or(0);
  p.lr = last_lr_;
  if (const auto now = Clock::now(); now - memory_read_ > std::chrono::seconds(1))
    memory_bytes_ = resident_bytes(), memory_read_ = now;
  p.memory_bytes = memory_bytes_;
  if (rate_ > 0)
    p.seconds_left =
        static_cast<double>((p.total_steps - p.step) * parts_->plan.global_batch) / rate_;
  terminal_.progress(p);
}

// False: a stop came first. The step is then saved without its evaluation, which the next
// invocation begins with.
bool Training::evaluate_now() {
  if (parts_->dataset->size(data::Split::kValidation) == 0) return true;
  const auto span = phase("evaluate");
  Evaluation evaluation;
  step_->in_float32([&] {
    with_weights(*model_, uses_average(parts_->recipe) ? step_->averaged() : NamedTensors{}, [&] {
      evaluation = evaluate(*model_, *parts_, data::Split::kValidation, device_, *world_,
                            [this] { return why_stop() != nullptr; });
    });
  });
  progress_.evaluation_cut = evaluation.stopped;
  if (evaluation.stopped) {
    if (evaluation.error) data_error_ = evaluation.error;
    stop_ = why_stop();
    if (!stop_) stop_ = "another rank";
    return false;
  }
  if (is_lead() && !evaluation.non_finite.empty() && evaluation.non_finite != non_finite_)
    log_warning(fmt::format("step {}: {}", progress_.step, evaluation.non_finite));
  non_finite_ = evaluation.non_finite;
  progress_.evaluated_step = progress_.step;
  progress_.monitored = parts_->recipe.get<ValidationFields>().monitor;
  progress_.monitor = evaluation.value(progress_.monitored);
  const auto stopping = parts_->recipe.get<EarlyStoppingFields>();
  const auto beats = [&](const std::optional<double>& other, double by) {
    const auto& value = progress_.monitor;
    return value && (!other ||
                     (parts_->plan.larger_is_better ? *value > *other + by : *value < *other - by));
  };
  const bool best = beats(progress_.best, 0);
  if (best) progress_.best = progress_.monitor, progress_.best_step = progress_.step;
  if (beats(progress_.improved, stopping.min_delta)) {
    progress_.improved = progress_.monitor;
    progress_.bad_evaluations = 0;
  } else {
    ++progress_.bad_evaluations;
    if (stopping.patience && progress_.bad_evaluations >= *stopping.patience)
      progress_.ended_early = true;
  }
  const track::Values values = row_values("validation", evaluation);
  row_values_.insert(row_values_.end(), values.begin(), values.end());
  print_evaluation(terminal_, fmt::format("step {}", progress_.step), evaluation,
                   best ? "best so far" : "");
  if (progress_.ended_early)
    terminal_.print(fmt::format(
        "early stopping: {} {} in {} evaluations", progress_.monitored,
        progress_.monitor ? fmt::format("is not better by more than {}", stopping.min_delta)
                          : "has no value",
        progress_.bad_evaluations));
  interval_begin_ = Clock::now(), interval_samples_now_ = 0;  // evaluation is not training speed
  return true;
}

void Training::save(Save how) {
  replicas_->settle();
  if (saved_step_ == progress_.step) return;
  const auto span = phase("save");
  if (how == Save::kAndWait)
    replicas_->require_same(replicated(), progress_.step);
  else
    replicas_->begin(replicated(), progress_.step);
  saved_step_ = progress_.step;
  last_save_ = Clock::now();
  // the ranks that hold a copy of the optimizer's state write it together
  checkpoint::Content content;
  content.part.index = world_->rank(), content.part.count = step_->sharers();
  content.part.patience_s = parts_->recipe.get<step::ParallelismFields>().timeout.value;
  if (content.part.count > 1)
    content.part.folder = world_->broadcast_text(
        is_lead() ? checkpoint::begin_parts(folder_.checkpoints(), progress_.step) : "");
  if (content.part.index >= content.part.count) return;
  if (how == Save::kBeside) content.approval = replicas_->approval();
  content.rows = step_->rows();
  content.step = progress_.step;
  content.samples = progress_.samples;
  content.texts["recipe.yaml"] = parts_->recipe.resolved();
  content.facts = facts_to_save();
  trackers_.flush();
  NamedTensors weights = step_->weights(), buffers = model_->buffers(), state = step_->state();
  if (!is_lead()) {  // the lead writes what all have
    weights.clear(), buffers.clear();
    std::erase_if(state, [&](const NamedTensor& t) { return !content.rows.contains(t.name); });
  }
  if (how == Save::kAndWait)
    saver_->save_now(std::move(content), weights, buffers, state);
  else
    saver_->take(std::move(content), weights, buffers, state);
}

// Where a rank has one: all end with it.
void Training::end_with_data_error() {
  std::string mine;
  try {
    if (data_error_) std::rethrow_exception(data_error_);
  } catch (const std::exception& error) {
    mine = error.what();
  }
  const auto all = world_->gather_text(mine);
  const auto first = std::find_if(all.begin(), all.end(), [](auto& text) { return !text.empty(); });
  if (first == all.end()) return;
  terminal_.print(fmt::format("stopped after step {}; everything is saved in {}", progress_.step,
                              folder_.path));
  if (data_error_) std::rethrow_exception(data_error_);
  throw Error(Code::kData, fmt::format("on rank {}, {}", first - all.begin(), *first));
}

std::string Training::facts_to_save() const {
  Progress stored = progress_;
  if (stored.evaluated_step != stored.step) stored.monitor.reset();
  return facts_json(stored, around_, step_->scalars(), parts_->recipe.folder(), folder_.path);
}

std::string Training::command_that_continues() const {
  if (parts_->recipe.get<checkpoint::CheckpointFields>().resume == "never")
    return fmt::format("With --run {} --set checkpoint.resume=auto the same command", folder_.path);
  return request_.folder.fresh ? "Without --fresh the same command" : "The same command";
}

// The newest checkpoint was written before the evaluation of its step: it is told what that gave.
void Training::restate() {
  replicas_->settle();
  if (!is_lead() || saved_step_ != progress_.step || progress_.evaluated_step != progress_.step)
    return;
  saver_->wait();
  const std::string name = checkpoint::step_name(progress_.step);
  checkpoint::restate(join_path(folder_.checkpoints(), name), facts_to_save(), *folder_.lock);
}

Code Training::finish() {
  bool done = reached_end() && !progress_.evaluation_cut;
  if (done && progress_.evaluated_step != progress_.step) {  // no step was taken
    done = evaluate_now();
    if (done) restate();
  }
  write_row();
  save(Save::kAndWait);
  saver_->wait();
  trackers_.finish();
  if (!done) {
    // some launchers end all ranks with the first that leaves with 75, and the lead still saved
    world_->barrier("the last save");
    // a launcher's signal reaches all, but another rank perhaps before this one
    if (const char* signal = stop_requested()) stop_ = signal;
    end_with_data_error();
    stop_is_served();
    terminal_.print(
        fmt::format("stopped by {} after step {}; everything is saved in {}. {} continues.", stop_,
                    progress_.step, folder_.path, command_that_continues()));
    return Code::kStopped;
  }
  check_bad_samples(*parts_, progress_.bad_samples, "this epoch");
  const int64_t skipped = step_->steps_skipped();
  if (skipped > 0 && skipped == progress_.step)
    throw Error(Code::kNonFinite,
                fmt::format("each of the {} steps was skipped, so nothing was trained", skipped),
                folder_.path, "the warnings above name what was not finite: mend that");
  const LeaveWhenAsked finishing(" after the last step, which is saved. " +
                                 command_that_continues() + " evaluates and exports.");
  const auto span = phase("finish");
  if (is_lead()) compare_with_replay();
  // under training.kernels: check
  for (const auto& [op, difference] : models::kernel_differences())
    terminal_.print(fmt::format("kernel {}: at most {:.2g} of the largest value from ATen's op", op,
                                difference));
  Finished finished{folder_, *parts_, model_,  step_->averaged(), progress_, saver_->blocked_s(),
                    skipped, device_, *world_, why_ended()};
  step_->in_float32([&] { finish_run(finished, terminal_); });
  return Code::kOk;
}

}  // namespace

Code train(const TrainRequest& request, track::Terminal& terminal) {
  install_stop_signals();
  const dist::Place place = dist::find_place();
  track::Terminal quiet(-1);  // what a lead says once need not be said by all
  const Code code = Training(request, place.rank == 0 ? terminal : quiet, place).run();
  pulse().leaves = true;
  return code;
}

}  // namespace lehr::run
