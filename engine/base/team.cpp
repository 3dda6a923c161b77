// The threads of OpenMP regions, in the place of libgomp's: LibTorch, oneDNN, MKL and our kernels
// enter regions by the C functions below, and liblehr.so is searched before libgomp. The parts of a
// region, their numbers and so all bits are as there. Other is who computes them: whoever is done
// takes a part that nobody has begun, and a thread that gets too little of a core, since another
// process wants it too, leaves its parts to the rest for a while. With libgomp the rest waits for
// that thread at the end of every region.
#include "engine/base/team.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

extern "C" int omp_get_max_threads();
extern "C" void omp_set_num_threads(int);

namespace lehr {
namespace {

using Work = void (*)(void*);
using Word = std::atomic<uint32_t>;  // that a futex waits on
static_assert(sizeof(Word) == 4 && Word::is_always_lock_free);

constexpr int64_t kMs = 1'000'000;      // in nanoseconds, as all times here
constexpr int64_t kSpin = 3 * kMs;      // waiting, before sleeping
constexpr int64_t kWindow = 20 * kMs;   // over which a thread's share of a core is taken
constexpr int kWindows = 3;             // in a row, before it counts
constexpr double kEnough = 0.65;        // of a core; two threads on one core get half each
constexpr int64_t kAbsence = 50 * kMs;  // the first, and each soon after another twice as long
constexpr int64_t kLongAbsence = 1000 * kMs;  // at most
constexpr int64_t kPatience = 20 * kMs;       // of an absent thread with a part that nobody takes
constexpr int64_t kIdle = 100 * kMs;          // of regions too small for a thread, before it leaves
constexpr int64_t kForever = INT64_MAX;

int64_t now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 * kMs + t.tv_nsec;
}

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void sleep_while(Word& word, uint32_t value, int64_t at_most = kForever) {
  const timespec limit{at_most / (1000 * kMs), at_most % (1000 * kMs)};
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, at_most == kForever ? nullptr : &limit,
          nullptr, 0);
}
void wake_all(Word& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

// Spins until `done()`, for kSpin at most; whether it came.
template <class Done>
bool spin(Done done) {
  for (int64_t i = 0, end = 0; !done(); ++i) {
    pause_core();
    if (i % 64 != 63) continue;
    const int64_t t = now();
    if (end == 0) end = t + kSpin;
    if (t > end) return false;
  }
  return true;
}

// How much of a core this thread gets of what it wants, by the scheduler's own account.
class Share {
 public:
  Share() : file_(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {}
  ~Share() {
    if (file_ >= 0) close(file_);
  }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  void restart() { end_ = now() + kWindow, read(&ran_, &waited_), short_ = 0; }
  // False after kWindows in a row in which it was not enough.
  bool is_enough() {
    const int64_t t = now();
    if (t < end_) return true;
    const int64_t ran = ran_, waited = waited_;
    end_ = t + kWindow;
    if (!read(&ran_, &waited_)) return true;
    const auto got = static_cast<double>(ran_ - ran),
               wanted = got + static_cast<double>(waited_ - waited);
    short_ = got < kEnough * wanted ? short_ + 1 : 0;
    return short_ < kWindows;
  }

 private:
  bool read(int64_t* ran, int64_t* waited) const {
    char text[96];
    const ssize_t n = file_ < 0 ? -1 : pread(file_, text, sizeof text - 1, 0);
    if (n <= 0) return false;
    text[n] = 0;
    long long first = 0, second = 0;
    if (std::sscanf(text, "%lld %lld", &first, &second) != 2) return false;
    *ran = first, *waited = second;
    return true;
  }

  int file_;
  int64_t end_ = 0, ran_ = 0, waited_ = 0;
  int short_ = 0;
};

// A loop, sections or a single, as the parts of a region come to it.
struct Construct {
  long next, end, step, chunk;
  long turn;  // of an ordered loop: where the chunk begins that may go on
};

// What the parts of a region share beside their work.
struct Region {
  int size = 1;
  Word arrived{0}, barriers{0};
  std::mutex mutex;
  std::vector<Construct> constructs;
};

// Work whose parts wait for each other by barriers of their own: it needs all threads at once.
std::array<std::atomic<Work>, 64> meeting{};
bool needs_all(Work work) {
  for (const auto& known : meeting) {
    const Work w = known.load(std::memory_order_relaxed);
    if (w == work) return true;
    if (!w) break;
  }
  return false;
}
void remember(Work work) {
  for (auto& known : meeting) {
    Work empty = nullptr;
    if (known.compare_exchange_strong(empty, work) || empty == work) return;
  }
}

class Pool;

// Where in a region this thread is.
struct Place {
  Region* region = nullptr;
  Pool* pool = nullptr;
  int part = 0;
  size_t constructs = 0;     // that it has come to
  long first = 0, past = 0;  // its chunk of the present one
};
thread_local Place place;

std::atomic<int64_t> regions{0}, taken{0}, absences{0};

// The threads that one thread works with in its regions.
class Pool {
 public:
  explicit Pool(int size) : size_(size), parts_(static_cast<size_t>(size)) {
    for (int part = 1; part < size; ++part)
      threads_.emplace_back([this, part, asked = omp_get_max_threads()] {
        omp_set_num_threads(asked);
        serve(part);
      });
  }
  ~Pool() {
    stop_ = true;
    number_.fetch_add(1);
    wake_all(number_);
    call();
    for (auto& thread : threads_) thread.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return size_; }

  void run(Work work, void* data, int size) {
    regions.fetch_add(1, std::memory_order_relaxed);
    const uint32_t number = number_.load(std::memory_order_relaxed) + 1;
    work_ = work, data_ = data;
    region_.size = size;
    if (!region_.constructs.empty()) region_.constructs.clear();
    for (int part = 1; part < size; ++part)
      parts_[part].store(2 * number, std::memory_order_relaxed);
    left_.store(static_cast<uint32_t>(size - 1), std::memory_order_relaxed);
    number_.store(number);
    if (sleepers_.load() > 0) wake_all(number_);
    if (away_.load() > 0 && needs_all(work)) call();
    execute(0);
    for (int part = 1; part < size; ++part) take(part, number, 0);
    wait_for_parts();
    if (!share_.is_enough()) share_.restart(), too_many_ = true;
  }

  // Waits for all parts of the region.
  void barrier() {
    if (away_ > 0) call();  // nobody else can begin a part while this one waits
    const uint32_t before = region_.barriers.load();
    if (region_.arrived.fetch_add(1) + 1 == static_cast<uint32_t>(region_.size)) {
      region_.arrived = 0;
      region_.barriers.fetch_add(1);
      wake_all(region_.barriers);
    } else if (!spin([&] { return region_.barriers.load() != before; })) {
      while (region_.barriers.load() == before) sleep_while(region_.barriers, before);
    }
  }

 private:
  // A part's word: twice the number of the region that it waits in, and one more once taken.
  bool take(int part, uint32_t number, int thread, bool was_missed = false) {
    uint32_t waits = 2 * number;
    if (parts_[part].load(std::memory_order_relaxed) != waits ||
        !parts_[part].compare_exchange_strong(waits, waits + 1))
      return false;
    execute(part);
    if (was_missed) remember(work_);
    if (part != thread) taken.fetch_add(1, std::memory_order_relaxed);
    if (left_.fetch_sub(1) == 1 && main_sleeps_) wake_all(left_);
    return true;
  }

  void execute(int part) {
    const Place outer = place;
    place = {&region_, this, part};
    work_(data_);
    place = outer;
  }

  void wait_for_parts() {
    const auto done = [&] { return left_.load() == 0; };
    if (spin(done)) return;
    main_sleeps_ = true;
    for (uint32_t left; (left = left_.load()) != 0;) sleep_while(left_, left);
    main_sleeps_ = false;
  }

  void call() {
    calls_.fetch_add(1);
    wake_all(calls_);
  }

  void serve(int part) {
    Share share;
    share.restart();
    uint32_t seen = 0;
    int64_t absence = kAbsence, back = 0, worked = now();
    while (true) {
      const uint32_t number = next_region(seen);
      if (stop_) return;
      seen = number;
      if (take(part, number, part)) worked = now();
      if (away_.load(std::memory_order_relaxed) > 0 ||
          sleepers_.load(std::memory_order_relaxed) > 0)
        for (int other = 1; other < size_; ++other) take(other, number, part);
      if (now() - worked > kIdle) {
        stay_away(part, kLongAbsence);
      } else if (!share.is_enough() || too_many_.exchange(false)) {
        absence = now() - back < kLongAbsence ? std::min(2 * absence, kLongAbsence) : kAbsence;
        stay_away(part, absence);
      } else {
        continue;
      }
      back = worked = now();
      share.restart();
      seen = number_.load() - 1;  // a part of this one may wait
    }
  }

  uint32_t next_region(uint32_t seen) {
    const auto begun = [&] { return number_.load(std::memory_order_acquire) != seen; };
    if (!spin(begun)) {
      sleepers_.fetch_add(1);
      while (number_.load() == seen) sleep_while(number_, seen);
      sleepers_.fetch_sub(1);
    }
    return number_.load(std::memory_order_acquire);
  }

  // Comes back for a part that the others wait for: at a barrier that calls, or at one of code that
  // is not seen from here, which then is remembered.
  void stay_away(int part, int64_t duration) {
    absences.fetch_add(1, std::memory_order_relaxed);
    away_.fetch_add(1);
    const int64_t end = now() + duration;
    for (uint32_t calls = calls_.load(), waits = kTaken; !stop_;) {
      const int64_t left = end - now();
      if (left <= 0) break;
      sleep_while(calls_, calls, std::min(left, kPatience));
      const uint32_t word = parts_[part].load(), called = calls_.load();
      if (word == waits || called != calls) take(part, number_.load(), part, word == waits);
      calls = called;
      waits = word == 2 * number_.load() ? word : kTaken;
    }
    away_.fetch_sub(1);
  }

  static constexpr uint32_t kTaken = 1;

  const int size_;
  Region region_;
  Work work_ = nullptr;
  void* data_ = nullptr;
  Share share_;
  std::atomic<bool> stop_{false}, main_sleeps_{false}, too_many_{false};
  alignas(64) Word number_{0};  // of the region under way, or the last
  alignas(64) Word left_{0};    // parts that are not done
  alignas(64) std::atomic<int> sleepers_{0}, away_{0};
  Word calls_{0};
  std::vector<Word> parts_;
  std::vector<std::thread> threads_;
};

thread_local std::unique_ptr<Pool> own_pool;

int processors() {
  static const int count = [] {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
  }();
  return count;
}

int initial_threads() {
  static const int count = [] {
    const char* text = std::getenv("OMP_NUM_THREADS");
    const int asked = text ? std::atoi(text) : 0;
    return asked > 0 ? asked : processors();
  }();
  return count;
}
thread_local int asked_threads = 0;  // 0: as at the start

// Of a thread outside any region, for constructs there.
Region& region() {
  thread_local Region alone;
  if (place.region) return *place.region;
  alone.constructs.clear(), place.constructs = 0;
  return alone;
}

// The construct that this part has come to, made by the first.
Construct& come_to(Region& region, const Construct& made, bool* is_first = nullptr) {
  const size_t index = place.constructs++;
  if (is_first) *is_first = index == region.constructs.size();
  if (index == region.constructs.size()) region.constructs.push_back(made);
  return region.constructs[index];
}

bool next_chunk(Construct& c, long* first, long* past) {
  if (c.step > 0 ? c.next >= c.end : c.next <= c.end) return false;
  *first = c.next;
  *past = c.step > 0 ? std::min(c.next + c.chunk * c.step, c.end)
                     : std::max(c.next + c.chunk * c.step, c.end);
  c.next = *past;
  place.first = *first, place.past = *past;
  return true;
}

// Until the chunk of this part may go on.
void await_turn(Region& region, size_t index) {
  while (true) {
    {
      const std::lock_guard lock(region.mutex);
      if (region.constructs[index].turn == place.first) return;
    }
    std::this_thread::yield();
  }
}

// Threads of the parent are not in a child.
[[maybe_unused]] const int at_fork =
    pthread_atfork(nullptr, nullptr, [] { (void)own_pool.release(); });

std::mutex unnamed_critical, atomic_update;

}  // namespace

TeamCounts team_counts() { return {regions, taken, absences}; }

}  // namespace lehr

// What g++ makes of OpenMP's directives (libgomp's ABI), as far as LibTorch calls it, and OpenMP's
// own functions. CMakeLists.txt looks for what LibTorch needs beyond, and leaves all to libgomp
// then.
#ifndef LEHR_LIBGOMP
using namespace lehr;

extern "C" {

int omp_get_num_procs() { return processors(); }
int omp_get_max_threads() { return asked_threads > 0 ? asked_threads : initial_threads(); }
void omp_set_num_threads(int n) { asked_threads = std::max(1, n); }
int omp_get_thread_num() { return place.part; }
int omp_get_num_threads() { return place.region ? place.region->size : 1; }
int omp_in_parallel() { return omp_get_num_threads() > 1; }

void GOMP_parallel(Work work, void* data, unsigned threads, unsigned) {
  const int size = threads > 0 ? static_cast<int>(threads) : omp_get_max_threads();
  if (size == 1 || place.pool) {  // a region within a region has one thread
    Region alone;
    const Place outer = place;
    place = {&alone, nullptr, 0};
    work(data);
    place = outer;
    return;
  }
  if (!own_pool || own_pool->size() < size) {
    own_pool.reset();
    own_pool = std::make_unique<Pool>(size);
  }
  own_pool->run(work, data, size);
}

void GOMP_barrier() {
  if (place.pool) place.pool->barrier();
}

bool GOMP_single_start() {
  Region& region = ::region();
  const std::lock_guard lock(region.mutex);
  bool is_first = false;
  come_to(region, {}, &is_first);
  return is_first;
}

bool GOMP_loop_dynamic_next(long* first, long* past) {
  Region& region = ::region();
  const std::lock_guard lock(region.mutex);
  return next_chunk(region.constructs[place.constructs - 1], first, past);
}
bool GOMP_loop_dynamic_start(long first, long past, long step, long chunk, long* begin, long* end) {
  Region& region = ::region();
  const std::lock_guard lock(region.mutex);
  return next_chunk(come_to(region, {first, past, step, chunk, first}), begin, end);
}
bool GOMP_loop_nonmonotonic_dynamic_start(long first, long past, long step, long chunk, long* begin,
                                          long* end) {
  return GOMP_loop_dynamic_start(first, past, step, chunk, begin, end);
}
bool GOMP_loop_nonmonotonic_dynamic_next(long* begin, long* end) {
  return GOMP_loop_dynamic_next(begin, end);
}
void GOMP_loop_end() { GOMP_barrier(); }
void GOMP_loop_end_nowait() {}

bool GOMP_loop_ordered_dynamic_start(long first, long past, long step, long chunk, long* begin,
                                     long* end) {
  return GOMP_loop_dynamic_start(first, past, step, chunk, begin, end);
}
bool GOMP_loop_ordered_dynamic_next(long* begin, long* end) {
  Region& region = ::region();
  const size_t index = place.constructs - 1;
  await_turn(region, index);
  const std::lock_guard lock(region.mutex);
  region.constructs[index].turn = place.past;
  return next_chunk(region.constructs[index], begin, end);
}
void GOMP_ordered_start() { await_turn(::region(), place.constructs - 1); }
void GOMP_ordered_end() {}

unsigned GOMP_sections_start(unsigned count) {
  long first = 0, past = 0;
  return GOMP_loop_dynamic_start(1, static_cast<long>(count) + 1, 1, 1, &first, &past)
             ? static_cast<unsigned>(first)
             : 0;
}
unsigned GOMP_sections_next() {
  long first = 0, past = 0;
  return GOMP_loop_dynamic_next(&first, &past) ? static_cast<unsigned>(first) : 0;
}
void GOMP_sections_end() { GOMP_barrier(); }
void GOMP_sections_end_nowait() {}

void GOMP_critical_start() { unnamed_critical.lock(); }
void GOMP_critical_end() { unnamed_critical.unlock(); }
// `name`: a pointer of each name's own, zero at first
void GOMP_critical_name_start(void** name) {
  auto& mutex = *reinterpret_cast<std::atomic<std::mutex*>*>(name);
  std::mutex* known = mutex.load();
  if (!known) {
    auto made = std::make_unique<std::mutex>();
    if (mutex.compare_exchange_strong(known, made.get())) known = made.release();
  }
  known->lock();
}
void GOMP_critical_name_end(void** name) {
  reinterpret_cast<std::atomic<std::mutex*>*>(name)->load()->unlock();
}
void GOMP_atomic_start() { atomic_update.lock(); }
void GOMP_atomic_end() { atomic_update.unlock(); }

}  // extern "C"
#endif

namespace lehr {

bool team_is_ours() {
#ifdef LEHR_LIBGOMP
  return false;
#else
  return dlsym(RTLD_DEFAULT, "GOMP_parallel") == reinterpret_cast<void*>(&GOMP_parallel);
#endif
}

}  // namespace lehr
