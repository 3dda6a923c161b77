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
#include "engine/base/log.h"

namespace lehr::checkpoint {
namespace {

struct DtypeName {
  at::ScalarType type;
  const char* name;
};
constexpr DtypeName kDtypes[] = {{at::kDouble, "F64"},    {at::kFloat, "F32"}, {at::kHalf, "F16"},
                                 {at::kBFloat16, "BF16"}, {at::kLong, "I64"},  {at::kInt, "I32"},
                                 {at::kShort, "I16"},     {at::kChar, "I8"},   {at::kByte, "U8"},
                                 {at::kBool, "BOOL"}};

std::string dtype_of(const NamedTensor& named) {
  for (const auto& dtype : kDtypes)
    if (dtype.type == named.tensor.scalar_type()) return dtype.name;
  throw Error(
      Code::kInternal,
      fmt::format("a tensor of dtype {} cannot be saved", at::toString(named.tensor.scalar_type())),
      named.name);
}

TensorView describe(const NamedTensor& named) {
  return {named.name, dtype_of(named), named.tensor.sizes().vec(), nullptr,
          static_cast<uint64_t>(named.tensor.nbytes())};
}

at::Tensor as_tensor(const TensorView& view, at::ScalarType type) {
  return at::from_blob(const_cast<void*>(view.data), view.shape, at::TensorOptions(type));
}

// Memory for one snapshot, kept between saves: its page faults cost more than the copy itself.
class Arena {
 public:
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
  }
  char* at(uint64_t offset) { return memory_ + offset; }
  void fault_in() {
    if (memory_) std::memset(memory_, 0, size_);
  }

 private:
  void release() {
    if (memory_) ::munmap(memory_, size_);
    memory_ = nullptr, size_ = 0;
  }
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
  std::string folder;
  Retention retention;
  Arena arena;
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
  void run(const Content& content, std::vector<Copy> copies) {
    try {
      copy(copies);
    } catch (...) {
      failure = std::current_exception();
    }
    copies.clear();
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

Saver::Saver(std::string folder, Retention retention) : state_(new State) {
  state_->folder = std::move(folder);
  state_->retention = retention;
}

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
      copies->push_back({named.tensor.detach(), describe(named)});
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
  c10::NoGradGuard no_grad;
  for (const auto& copy : now) {
    copy.run();
    saved_weights.push_back(copy.target);
  }
  if (content.part.index == 0) content.shards["weights"] = std::move(saved_weights);
  content.shards["state"] = std::move(saved_state);
  state_->copied = false;  // no thread is running
  state_->thread = std::thread(
      [state = state_.get(), content = std::move(content), copies = std::move(later)]() mutable {
        state->run(content, std::move(copies));
      });
}

void Saver::save_now(Content content, const NamedTensors& weights,
                     const NamedTensors& volatile_tensors, const NamedTensors& state) {
  wait();
  std::vector<at::Tensor> held;
  content.shards.clear();
  const auto view = [&](const char* shard, const NamedTensors& tensors) {
    for (const auto& named : tensors) {
      held.push_back(named.tensor.detach().cpu().contiguous());
      TensorView view = describe(named);
      view.data = held.back().const_data_ptr();
      content.shards[shard].push_back(view);
    }
  };
  view("weights", weights);
  view("weights", volatile_tensors);
  view("state", state);
  state_->commit(content);
}

void Saver::finish_copy() {
  Stopwatch stopwatch(&state_->blocked_s);
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->copied; });
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
  TensorView here = describe(named), there = *view;
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

std::vector<TensorView> views_of(const NamedTensors& tensors) {
  std::vector<TensorView> views;
  for (const auto& named : tensors) {
    if (!named.tensor.is_cpu() || !named.tensor.is_contiguous())
      throw Error(Code::kInternal, "is not contiguous memory of the CPU", named.name);
    views.push_back(describe(named));
    views.back().data = named.tensor.const_data_ptr();
  }
  return views;
}

}  // namespace lehr::checkpoint
