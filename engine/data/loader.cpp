// Each thread makes whole steps, claimed in order and put into their slot of a ring; what a step
// holds is a function of its number alone, so threads decide when, never what.
#include "engine/data/loader.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/base/error.h"
#include "engine/base/pulse.h"
#include "engine/data/fields.h"
#include "engine/data/order.h"

namespace lehr::data {
namespace {

// Batches that the consumer has dropped are filled again: fresh memory costs more in page faults
// than filling it does.
class Pool {
 public:
  Pool(const Dataset& dataset, int64_t batch, size_t most)
      : dataset_(dataset), batch_(batch), most_(most) {}

  Batch take(int64_t size) {
    Batch batch = size == batch_ ? full() : dataset_.allocate(size);
    batch.samples.resize(size);
    return batch;
  }

 private:
  // only the pool refers to the tensor, and no view refers to its memory
  static bool is_free(const at::Tensor& t) {
    return !t.defined() || (t.use_count() == 1 && t.storage().use_count() == 1);
  }

  Batch full() {
    std::lock_guard lock(mutex_);
    for (size_t k = 0; k < kept_.size(); ++k) {
      Batch& batch = kept_[next_ = (next_ + 1) % kept_.size()];
      if (!is_free(batch.inputs) || !is_free(batch.targets) || !is_free(batch.segments)) continue;
      // what the last owner did to the memory comes before what is written now
      std::atomic_thread_fence(std::memory_order_acquire);
      return batch;
    }
    Batch batch = dataset_.allocate(batch_);
    if (kept_.size() < most_) kept_.push_back(batch);
    return batch;
  }

  const Dataset& dataset_;
  const int64_t batch_;
  const size_t most_;
  std::mutex mutex_;
  std::vector<Batch> kept_;
  size_t next_ = 0;
};

LoaderOptions checked(const Dataset& dataset, LoaderOptions o) {
  const int64_t n = dataset.size(o.split);
  if (o.global_batch < 1 || o.micro_batch < 1 || o.threads < 0 || o.world < 1 || o.rank < 0 ||
      o.rank >= o.world || (o.shards > 0 && o.shards % o.world != 0))
    throw Error(Code::kInternal, "loader options that make no sense");
  if (o.drop_last && n < o.global_batch)
    throw Error(Code::kRecipe,
                fmt::format("the {} set has {} samples, fewer than one batch of {}",
                            to_string(o.split), n, o.global_batch),
                "data.drop_last",
                "Take a smaller training.global_batch_size, or drop_last: false.");
  if (n < 1 && !o.one_pass)
    throw Error(Code::kData, fmt::format("the {} set is empty", to_string(o.split)));
  o.prefetch = std::max<int64_t>(1, o.prefetch);
  return o;
}

// The samples that fill() left out make place for those behind them.
void close_ranks(Batch& batch) {
  const int64_t size = batch.size();
  int64_t kept = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (batch.samples[i] == kLeftOut) continue;
    if (kept < i)
      for (at::Tensor* t : {&batch.inputs, &batch.targets, &batch.segments})
        if (t->defined()) t->select(0, kept).copy_(t->select(0, i));
    batch.samples[kept++] = batch.samples[i];
  }
  if (kept == size) return;
  batch.samples.resize(kept);
  for (at::Tensor* t : {&batch.inputs, &batch.targets, &batch.segments})
    if (t->defined()) *t = kept ? t->slice(0, 0, kept) : at::Tensor();
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

struct Loader::State {
  // where a step lies: samples [offset, offset + count) of the epoch's order
  struct Place {
    int64_t epoch = 0, offset = 0, count = 0;
  };
  struct Slot {
    std::optional<StepBatch> batch;
    std::exception_ptr error;
    bool ready() const { return batch.has_value() || error; }
  };

  State(std::shared_ptr<const Dataset> set, LoaderOptions o)
      : dataset(std::move(set)),
        options(checked(*dataset, o)),
        size(dataset->size(options.split)),
        per_epoch(options.drop_last ? size / options.global_batch * options.global_batch : size),
        pool(*dataset, options.micro_batch,
             // steps that wait, are being made, and are with the consumer
             (options.prefetch + options.threads + 2) *
                 ceil_div(ceil_div(options.global_batch, options.world), options.micro_batch)),
        ring(options.threads > 0 ? options.prefetch : 0) {
    for (int i = 0; i < options.threads; ++i) threads.emplace_back([this] { work(); });
  }

  ~State() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    space.notify_all();
    for (auto& thread : threads) thread.join();
  }

  int64_t steps_from(int64_t offset) const {
    return ceil_div(per_epoch - offset, options.global_batch);
  }

  // of the `step`th step after `start`; steps never cross an epoch's end
  Place place(int64_t step) const {
    if (per_epoch == 0) return {};
    int64_t epoch = start / per_epoch, offset = start % per_epoch;
    if (const int64_t first = steps_from(offset); step < first) {
      offset += step * options.global_batch;
    } else {
      const int64_t after = step - first, each = steps_from(0);
      epoch += 1 + after / each;
      offset = after % each * options.global_batch;
    }
    return {epoch, offset, std::min(options.global_batch, per_epoch - offset)};
  }

  // with one_pass: steps from `start` to the end of its epoch
  bool is_past(int64_t step) const {
    return options.one_pass && (per_epoch == 0 || step >= steps_from(start % per_epoch));
  }

  StepBatch make(const Place& place) {
    StepBatch step;
    step.samples = place.count;
    step.position = place.epoch * per_epoch + place.offset;
    step.epoch = place.epoch;
    step.ends_epoch = place.offset + place.count == per_epoch;
    // this rank's slice; uneven ones differ by one sample
    const int64_t begin = place.offset + place.count * options.rank / options.world;
    const int64_t end = place.offset + place.count * (options.rank + 1) / options.world;
    const Permutation order(size, options.seed, place.epoch);
    const bool shuffle =
        options.shuffle && !(options.split == Split::kTrain && dataset->is_ordered());
    std::vector<int64_t> samples(options.micro_batch);
    const auto add = [&](int64_t at, int64_t n) {
      for (int64_t i = 0; i < n; ++i)
        samples[i] = shuffle ? static_cast<int64_t>(order(at + i)) : at + i;
      Batch batch = pool.take(n);
      batch.epoch = place.epoch;
      dataset->fill(options.split, samples.data(), 0, n, options.augment, options.seed, place.epoch,
                    batch);
      close_ranks(batch);
      get_on();
      if (batch.size() == 0) {  // its shard is empty, as of a step that is too short
        if (options.shards > 0) step.micro.emplace_back();
        return;
      }
      if (options.device) {
        batch.inputs = options.device->pin(batch.inputs);
        batch.targets = options.device->pin(batch.targets);
        if (batch.segments.defined()) batch.segments = options.device->pin(batch.segments);
      }
      step.micro.push_back(std::move(batch));
    };
    if (options.shards == 0) {
      for (int64_t at = begin; at < end; at += options.micro_batch)
        add(at, std::min(options.micro_batch, end - at));
      return step;
    }
    // cut where any number of ranks would cut
    const int64_t each = options.shards / options.world;
    for (int64_t s = options.rank * each; s < (options.rank + 1) * each; ++s) {
      const int64_t from = place.offset + place.count * s / options.shards;
      const int64_t to = place.offset + place.count * (s + 1) / options.shards;
      if (to > from)
        add(from, to - from);
      else
        step.micro.emplace_back();
    }
    return step;
  }

  Slot made(const Place& place) {
    Slot slot;
    try {
      slot.batch = make(place);
    } catch (...) {
      slot.error = std::current_exception();
    }
    return slot;
  }

  // the step that comes next, once it is made, here or by a thread
  Slot& wait(std::unique_lock<std::mutex>& lock) {
    if (options.threads == 0) {
      if (!ahead.ready()) ahead = made(place(taken));
      return ahead;
    }
    Slot& slot = ring[taken % options.prefetch];
    ready.wait(lock, [&] { return slot.ready(); });
    return slot;
  }

  const StepBatch* peek() {
    if (is_past(taken)) return nullptr;
    std::unique_lock lock(mutex);
    Slot& slot = wait(lock);
    if (slot.error) std::rethrow_exception(slot.error);  // and again on the next call
    return &*slot.batch;
  }

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      space.wait(lock,
                 [&] { return stop || (claimed < taken + options.prefetch && !is_past(claimed)); });
      if (stop) return;
      const int64_t step = claimed++, made_for = generation;
      const Place at = place(step);
      lock.unlock();
      Slot slot = made(at);
      lock.lock();
      if (made_for != generation) continue;  // seek() came between
      ring[step % options.prefetch] = std::move(slot);
      if (step == taken) ready.notify_one();
    }
  }

  StepBatch next() {
    if (is_past(taken)) return {};
    std::unique_lock lock(mutex);
    Slot& slot = wait(lock);
    if (slot.error) std::rethrow_exception(slot.error);  // and again on the next call
    StepBatch step = std::move(*slot.batch);
    slot = {};
    ++taken;
    lock.unlock();
    space.notify_one();
    return step;
  }

  void seek(int64_t samples) {
    std::vector<Slot> dropped(ring.size());
    {
      std::lock_guard lock(mutex);
      std::swap(ring, dropped);
      ahead = {};
      ++generation;
      start = samples;
      claimed = taken = 0;
    }
    space.notify_all();
  }

  const std::shared_ptr<const Dataset> dataset;
  const LoaderOptions options;
  const int64_t size, per_epoch;
  Pool pool;

  std::mutex mutex;
  std::condition_variable space, ready;
  std::vector<Slot> ring;
  Slot ahead;                      // without threads
  int64_t start = 0;               // samples consumed before step 0
  int64_t claimed = 0, taken = 0;  // steps that a thread began, that next() returned
  int64_t generation = 0;
  bool stop = false;
  std::vector<std::thread> threads;  // last: they use all of the above
};

Loader::Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
    : state_(std::make_unique<State>(std::move(dataset), options)) {}

Loader::~Loader() = default;

const StepBatch* Loader::peek() { return state_->peek(); }

void Loader::seek(int64_t samples) { state_->seek(samples); }

StepBatch Loader::next() {
  StepBatch step = state_->next();
  if (DeviceRuntime* device = state_->options.device) {
    // here and not in a loader thread: it is this thread's stream that has to wait for the copy
    for (Batch& batch : step.micro) {
      if (!batch.inputs.defined()) continue;
      batch.inputs = device->copy_in(batch.inputs);
      batch.host_targets = batch.targets;
      batch.targets = device->copy_in(batch.targets);
      if (batch.segments.defined()) batch.segments = device->copy_in(batch.segments);
    }
  }
  return step;
}

int64_t Loader::steps_per_epoch() const { return state_->steps_from(0); }

int64_t Loader::samples_per_epoch() const { return state_->per_epoch; }

LoaderOptions loader_options(const FieldSource& fields) {
  const auto f = fields.get<DataFields>();
  LoaderOptions options;
  options.drop_last = f.drop_last;
  options.threads = static_cast<int>(f.threads);
  options.prefetch = f.prefetch;
  return options;
}

}  // namespace lehr::data
