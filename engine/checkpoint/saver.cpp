// The only part of the room that sees LibTorch: tensors become plain memory and back. One thread
// per save: it copies at the caller's priority, then steps back and writes.
#include "engine/checkpoint/saver.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "engine/base/error.h"
#include "engine/base/host_bytes.h"
#include "engine/base/log.h"
#include "engine/base/pulse.h"

namespace lehr::checkpoint {
namespace {

at::Tensor as_tensor(const TensorView& view, at::ScalarType type) {
  return at::from_blob(const_cast<void*>(view.data), view.shape, at::TensorOptions(type));
}

// Memory for one snapshot, kept between saves: its page faults cost more than the copy itself.
class Arena {
 public:
  explicit Arena(DeviceRuntime* device) : device_(device) {}
  ~Arena() { release(); }
  void reserve(uint64_t bytes) {
    if (bytes <= size_) return;
    release();
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
      throw Error(Code::kCheckpoint, fmt::format("no memory for a snapshot of {} MB", bytes >> 20));
    ::madvise(memory, bytes, MADV_HUGEPAGE);  // where the kernel has them; the rest works as well
    memory_ = static_cast<char*>(memory), size_ = bytes;
    if (device_) device_->lock_pages(memory_, size_);
  }
  char* at(uint64_t offset) { return memory_ + offset; }
  void fault_in() {
    if (memory_) std::memset(memory_, 0, size_);
  }

 private:
  void release() {
    if (memory_ && device_) device_->unlock_pages(memory_);
    if (memory_) ::munmap(memory_, size_);
    memory_ = nullptr, size_ = 0;
  }
  DeviceRuntime* const device_;
  char* memory_ = nullptr;
  uint64_t size_ = 0;
};

uint64_t padded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

struct Copy {
  at::Tensor source;
  TensorView target;
  void run() const {
    if (target.bytes == 0) return;
    if (source.is_cpu() && source.is_contiguous() && !source.is_conj() && !source.is_neg()) {
      std::memcpy(const_cast<void*>(target.data), source.const_data_ptr(), target.bytes);
    } else {
      as_tensor(target, source.scalar_type()).copy_(source);
    }
  }
};

// What is on a device begins to be copied, and is taken from the list.
std::shared_ptr<CopyOut> begin_copy_out(DeviceRuntime* device, std::vector<Copy>* copies) {
  std::vector<at::Tensor> from;
  std::vector<void*> to;
  std::erase_if(*copies, [&](const Copy& copy) {
    if (!device || copy.source.is_cpu()) return false;
    from.push_back(copy.source);
    to.push_back(const_cast<void*>(copy.target.data));
    return true;
  });
  return from.empty() ? nullptr : device->copy_out(from, to);
}

// adds the life of the object to a total
class Stopwatch {
 public:
  explicit Stopwatch(double* total) : total_(total) {}
  ~Stopwatch() {
    *total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double* total_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

struct Saver::State {
  State(std::string f, Retention r, DeviceRuntime* d)
      : folder(std::move(f)), retention(r), device(d), arena(d) {}
  const std::string folder;
  const Retention retention;
  DeviceRuntime* const device;
  Arena arena;
  std::shared_ptr<CopyOut> copying;  // of what an update changes, until that comes after it
  std::thread thread;
  std::mutex mutex;  // of `copied`
  std::condition_variable changed;
  bool copied = true;
  std::exception_ptr failure;  // the thread's, read after joining it
  std::atomic<int64_t> committed{-1};
  double blocked_s = 0;
  std::atomic<bool> give_up{false};  // waiting for others

  void say_copied() {
    std::lock_guard lock(mutex);
    copied = true;
    changed.notify_all();
  }

  void copy(const std::vector<Copy>& copies) {
    // a second OpenMP team beside the one that trains would fight with it for the cores
    at::get_num_threads();  // its first call in a thread sets the number
    omp_set_num_threads(1);
    c10::NoGradGuard no_grad;
    for (const auto& one : copies) one.run();
  }

  void commit(const Content& content) {
    const Saving saving;
    save(folder, content, &give_up);
    if (content.part.index > 0) return;  // the first commits
    committed = content.step;
    try {
      retain(folder, retention);
    } catch (const std::exception& e) {  // the save stands; the next one tries again
      log_warning(std::string("an old checkpoint could not be removed: ") + e.what());
    }
  }

  // in the background thread
  void run(const Content& content, std::vector<Copy> copies,
           std::vector<std::shared_ptr<CopyOut>> of_device) {
    const WorkFor phase("save");
    const Saving saving;  // what is copied is worth waiting for
    try {
      copy(copies);
      say_copied();
      for (const auto& one : of_device)
        if (one) one->wait();
    } catch (...) {
      failure = std::current_exception();
    }
    copies.clear(), of_device.clear();
    say_copied();
    if (failure) return abandon(content.part, "its state could not be copied");
    ::setpriority(PRIO_PROCESS, 0, 10);  // of this thread alone; the write is in no hurry
    try {
      commit(content);
    } catch (...) {
      failure = std::current_exception();
    }
  }
};

Saver::Saver(std::string folder, Retention retention, DeviceRuntime* device)
    : state_(new State(std::move(folder), retention, device)) {}

Saver::~Saver() {
  state_->give_up = true;
  try {
    wait();
  } catch (const std::exception& e) {
    log_error(e.what());
  }
}

void Saver::prepare(const NamedTensors& weights, const NamedTensors& volatile_tensors,
                    const NamedTensors& state) {
  wait();
  uint64_t total = 0;
  for (const auto* tensors : {&weights, &volatile_tensors, &state})
    for (const auto& named : *tensors) total += padded(named.tensor.nbytes());
  state_->arena.reserve(total);
  state_->thread = std::thread([state = state_.get()] { state->arena.fault_in(); });
}

void Saver::take(Content content, const NamedTensors& weights, const NamedTensors& volatile_tensors,
                 const NamedTensors& state) {
  Stopwatch stopwatch(&state_->blocked_s);
  try {
    wait();
  } catch (const std::exception& e) {
    abandon(content.part, e.what());
    throw;
  }
  std::vector<Copy> now, later;
  uint64_t total = 0;
  auto lay_out = [&](const NamedTensors& tensors, std::vector<Copy>* copies) {
    for (const auto& named : tensors) {
      copies->push_back({named.tensor.detach(), described(named)});
      total += padded(copies->back().target.bytes);
    }
  };
  lay_out(volatile_tensors, &now);
  lay_out(weights, &later);
  lay_out(state, &later);

  state_->arena.reserve(total);
  uint64_t offset = 0;
  auto place = [&](std::vector<Copy>* copies) {
    for (auto& copy : *copies) {
      copy.target.data = state_->arena.at(offset);
      offset += padded(copy.target.bytes);
    }
  };
  place(&now);
  place(&later);

  content.shards.clear();
  std::vector<TensorView> saved_weights, saved_state;
  for (size_t i = 0; i < later.size(); ++i)
    (i < weights.size() ? saved_weights : saved_state).push_back(later[i].target);
  for (const auto& copy : now) saved_weights.push_back(copy.target);
  c10::NoGradGuard no_grad;
  std::shared_ptr<CopyOut> first = begin_copy_out(state_->device, &now);
  if (first) first->block();  // the next forward changes them
  state_->copying = begin_copy_out(state_->device, &later);
  for (const auto& copy : now) copy.run();
  if (content.part.index == 0) content.shards["weights"] = std::move(saved_weights);
  content.shards["state"] = std::move(saved_state);
  state_->copied = false;  // no thread is running
  state_->thread =
      std::thread([state = state_.get(), content = std::move(content), copies = std::move(later),
                   of_device = std::vector{first, state_->copying}]() mutable {
        state->run(content, std::move(copies), std::move(of_device));
      });
}

void Saver::save_now(Content content, const NamedTensors& weights,
                     const NamedTensors& volatile_tensors, const NamedTensors& state) {
  if (state_->device) {
    take(std::move(content), weights, volatile_tensors, state);
    return wait();
  }
  wait();
  HostViews weight_views(weights);
  for (const auto& named : volatile_tensors) weight_views.add(named);
  const HostViews state_views(state);
  content.shards.clear();
  if (!weight_views.views().empty()) content.shards["weights"] = weight_views.views();
  if (!state_views.views().empty()) content.shards["state"] = state_views.views();
  state_->commit(content);
}

void Saver::finish_copy() {
  Stopwatch stopwatch(&state_->blocked_s);
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->copied; });
  if (auto copying = std::exchange(state_->copying, nullptr)) copying->block();
}

void Saver::wait() {
  if (state_->thread.joinable()) state_->thread.join();
  if (!state_->failure) return;
  auto failure = std::exchange(state_->failure, nullptr);
  std::rethrow_exception(failure);
}

int64_t Saver::committed_step() const { return state_->committed; }
double Saver::blocked_s() const { return state_->blocked_s; }

namespace {

// Rows of a stored tensor, and where they go.
struct Transfer {
  const TensorView* from;
  int64_t first_from, first_into, count;  // rows
  at::Tensor into;
  void run() const {
    const auto sizes = into.sizes();
    const int64_t row_bytes =
        sizes.empty() || sizes[0] == 0 ? from->bytes : into.nbytes() / sizes[0];
    if (count == 0 || row_bytes == 0) return;
    const char* data = static_cast<const char*>(from->data) + first_from * row_bytes;
    at::Tensor target = sizes.empty() ? into : into.narrow(0, first_into, count);
    if (target.is_cpu() && target.is_contiguous()) {
      std::memcpy(target.mutable_data_ptr(), data, target.nbytes());
    } else {
      at::Tensor aligned = at::empty(target.sizes(), at::TensorOptions(target.scalar_type()));
      std::memcpy(aligned.mutable_data_ptr(), data, aligned.nbytes());
      target.copy_(aligned);
    }
  }
};

std::string text_of(const TensorView& view) {
  return fmt::format("{} [{}]", view.dtype, fmt::join(view.shape, ", "));
}

// What of `piece` belongs into the tensor, of which `wanted` rows are here.
void add_transfers(const Loaded::Piece& piece, const NamedTensor& named, const Rows* wanted,
                   std::vector<Transfer>* transfers) {
  const TensorView* view = piece.file->find(named.name);
  if (!view) return;
  TensorView here = described(named), there = *view;
  const int64_t rows = here.shape.empty() ? 1 : here.shape[0];
  const Rows mine = wanted ? *wanted : Rows{0, rows, rows};
  Rows theirs{0, there.shape.empty() ? 1 : there.shape[0], 0};
  theirs.of = theirs.count;
  if (const auto part = piece.rows.find(named.name); part != piece.rows.end())
    theirs = part->second;
  if (!here.shape.empty() && !there.shape.empty())
    here.shape[0] = mine.of, there.shape[0] = theirs.of;
  if (here.dtype != there.dtype || here.shape != there.shape)
    throw Error(Code::kCheckpoint,
                fmt::format("is {} in the checkpoint, and {} here", text_of(there), text_of(here)),
                named.name);
  const int64_t begin = std::max(mine.first, theirs.first);
  const int64_t end = std::min(mine.first + mine.count, theirs.first + theirs.count);
  if (begin >= end && rows > 0) return;
  transfers->push_back({view, begin - theirs.first, begin - mine.first,
                        std::max<int64_t>(0, end - begin), named.tensor});
}

void restore(const std::vector<Loaded::Piece>& pieces, const NamedTensors& into,
             const std::map<std::string, Rows>& rows) {
  std::vector<Transfer> transfers;
  for (const auto& named : into) {
    const auto wanted = rows.find(named.name);
    const size_t before = transfers.size();
    for (const auto& piece : pieces)
      add_transfers(piece, named, wanted == rows.end() ? nullptr : &wanted->second, &transfers);
    if (transfers.size() == before)
      throw Error(Code::kCheckpoint, "is not in the checkpoint", named.name);
  }
  c10::NoGradGuard no_grad;
  for (const auto& transfer : transfers) transfer.run();
}

}  // namespace

void restore(const Loaded& loaded, const std::string& shard, const NamedTensors& into,
             const std::map<std::string, Rows>& rows) {
  if (const auto pieces = loaded.shared.find(shard); pieces != loaded.shared.end())
    return restore(pieces->second, into, rows);
  restore({{loaded.shards.at(shard), {}}}, into, rows);
}

void restore(const SafetensorsFile& file, const NamedTensors& into) {
  // an owner that deletes nothing
  restore(
      {{std::shared_ptr<SafetensorsFile>(const_cast<SafetensorsFile*>(&file), [](auto*) {}), {}}},
      into, {});
}

}  // namespace lehr::checkpoint
