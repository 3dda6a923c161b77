// Runs grids: schedules the threads of a block, resolves barriers and warp operations, and puts
// what cannot be on a GPU into words.
#include "tests/cuda_host/block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <utility>

#include "tests/cuda_host/fiber.h"
#include "tests/cuda_host/race.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_host {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kDefaultSharedBytes = 48 << 10;
constexpr size_t kMaxSharedBytes = 99 << 10;  // what both sm_80 and sm_90, and sm_86, allow
constexpr size_t kMaxFindings = 40;

enum class State { kReady, kAtBarrier, kAtWarp, kDone };

struct Thread {
  std::unique_ptr<Fiber> fiber;
  uint3 index{};
  State state = State::kDone;
  Site site;                // where it waits
  uint32_t mask = 0;        // of the warp operation it waits in
  bool predicate = false;   // __syncthreads_count
  int count = 0;            // its result
  uint64_t lanes[32] = {};  // what the lanes of a finished warp operation brought
};

// lanes that meet at one place with one mask
struct Meeting {
  Site site;
  uint32_t mask = 0, arrived = 0;
  bool orders_memory = false;
  uint64_t values[32] = {};
};

std::vector<std::string>& findings() {
  static std::vector<std::string> list;
  return list;
}
std::set<std::string>& finding_keys() {
  static std::set<std::string> keys;
  return keys;
}
constexpr int kProcessors = 2;
int device_processors = kProcessors;
int64_t first_block = 0, block_count = INT64_MAX;

int64_t reports = 0;  // findings with their repetitions

std::map<const void*, size_t>& shared_limits() {
  static std::map<const void*, size_t> limits;
  return limits;
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

// "0-31, 40" for sorted numbers
std::string ranges(const std::vector<int>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t j = i;
    while (j + 1 < numbers.size() && numbers[j + 1] == numbers[j] + 1) ++j;
    if (!text.empty()) text += ", ";
    text += std::to_string(numbers[i]);
    if (j > i) text += "-" + std::to_string(numbers[j]);
    i = j + 1;
  }
  return text;
}

std::string hex(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

std::vector<int> bits(uint32_t mask) {
  std::vector<int> list;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) list.push_back(i);
  return list;
}

// One block at a time; fibers are kept for the next.
class Block {
 public:
  // all threads of one block, to the end or to a standstill
  void run(const cudaLaunchConfig_t& config, uint3 index, int64_t number, void (*body)(void*),
           void* argument);
  void set_schedule(const Schedule& schedule) {
    schedule_ = schedule;
    random_.seed(schedule.seed);
  }
  std::vector<int64_t> order(int64_t count);

  void sync_threads(bool predicate, Site site);
  void meet(uint32_t mask, uint64_t value, bool orders_memory, Site site);
  Thread& current() { return threads_[current_]; }
  int lane() const { return current_ % 32; }
  bool running() const { return current_ >= 0; }
  void* dynamic_shared() const { return shared_; }

 private:
  void wait(State state, Site site);
  void exited(int thread);
  void finish(int warp, size_t meeting);
  bool release_barrier();
  void report_standstill();
  void allocate_shared(size_t bytes);

  Schedule schedule_;
  std::mt19937_64 random_;
  std::vector<Thread> threads_;
  int size_ = 0, current_ = -1;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  std::vector<std::vector<Meeting>> meetings_;  // by warp
  void* shared_ = nullptr;
};

Block& block() {
  static Block one;
  return one;
}

std::vector<int64_t> Block::order(int64_t count) {
  std::vector<int64_t> list(count);
  std::iota(list.begin(), list.end(), int64_t{0});
  if (schedule_.order == Schedule::Order::kReverse) std::reverse(list.begin(), list.end());
  if (schedule_.order == Schedule::Order::kRandom) std::shuffle(list.begin(), list.end(), random_);
  return list;
}

// exact size, filled with a pattern that is NaN in every float type
void Block::allocate_shared(size_t bytes) {
  std::free(shared_);
  shared_ = nullptr;
  if (posix_memalign(&shared_, 128, std::max<size_t>(bytes, 1)) != 0) std::abort();
  std::memset(shared_, 0xff, std::max<size_t>(bytes, 1));
#ifdef __SANITIZE_ADDRESS__
  if (bytes == 0) __asan_poison_memory_region(shared_, 1);
#endif
  race::set_dynamic_shared(shared_, bytes);
}

void Block::run(const cudaLaunchConfig_t& config, uint3 index, int64_t number, void (*body)(void*),
                void* argument) {
  const dim3 dim = config.blockDim;
  size_ = static_cast<int>(dim.x * dim.y * dim.z);
  body_ = body;
  argument_ = argument;
  threads_.resize(std::max<size_t>(threads_.size(), size_));
  meetings_.assign((size_ + 31) / 32, {});
  blockIdx = index;
  blockDim = dim;
  gridDim = config.gridDim;
  allocate_shared(config.dynamicSmemBytes);
  race::begin_block(number, size_);
  for (int i = 0; i < size_; ++i) {
    Thread& t = threads_[i];
    if (!t.fiber)
      t.fiber = std::make_unique<Fiber>(i, [this] {
        body_(argument_);
        exited(current_);
      });
    t.index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
    t.state = State::kReady;
  }

  for (;;) {
    bool moved = false;
    for (int64_t i : order(size_)) {
      if (threads_[i].state != State::kReady) continue;
      moved = true;
      current_ = static_cast<int>(i);
      threadIdx = threads_[i].index;
      race::begin_thread(current_);
      threads_[i].fiber->resume();
    }
    current_ = -1;
    race::end_block();
    if (moved) continue;
    if (std::all_of(threads_.begin(), threads_.begin() + size_,
                    [](const Thread& t) { return t.state == State::kDone; }))
      return;
    if (!release_barrier()) {
      report_standstill();
      for (int i = 0; i < size_; ++i)
        if (threads_[i].state != State::kDone) threads_[i].fiber->abandon();
      return;
    }
  }
}

void Block::wait(State state, Site site) {
  Thread& t = current();
  t.state = state;
  t.site = site;
  t.fiber->leave();
}

void Block::sync_threads(bool predicate, Site site) {
  current().predicate = predicate;
  wait(State::kAtBarrier, site);
}

// True when every thread that has not exited waits at __syncthreads: they go on.
bool Block::release_barrier() {
  std::vector<int> waiting, done;
  for (int i = 0; i < size_; ++i) {
    if (threads_[i].state == State::kAtBarrier) waiting.push_back(i);
    if (threads_[i].state == State::kDone) done.push_back(i);
  }
  if (waiting.empty() || static_cast<int>(waiting.size() + done.size()) != size_) return false;
  const Site site = threads_[waiting[0]].site;
  if (!done.empty())
    add_finding("barrier at " + to_string(site) + ": threads " + ranges(done) +
                " have exited before it");
  int count = 0;
  for (int i : waiting) {
    count += threads_[i].predicate;
    if (!same(threads_[i].site, site))
      add_finding("one barrier, two places: thread " + std::to_string(waiting[0]) + " waits at " +
                  to_string(site) + ", thread " + std::to_string(i) + " at " +
                  to_string(threads_[i].site));
  }
  race::block_barrier();
  for (int i : waiting) {
    threads_[i].count = count;
    threads_[i].state = State::kReady;
  }
  return true;
}

// The current lane brings `value` to the meeting of `mask` at `site`; on return every lane's is
// there.
void Block::meet(uint32_t mask, uint64_t value, bool orders_memory, Site site) {
  const int warp = current_ / 32, lane = this->lane();
  Thread& t = current();
  if (!(mask >> lane & 1)) {
    add_finding(to_string(site) + ": lane " + std::to_string(lane) + " calls with mask " +
                hex(mask) + ", which does not name it");
    std::fill(t.lanes, t.lanes + 32, ~uint64_t{0});
    t.lanes[lane] = value;
    return;
  }
  // lanes that are not there, or no longer
  uint32_t absent = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1 && (warp * 32 + i >= size_ || threads_[warp * 32 + i].state == State::kDone))
      absent |= 1u << i;
  if (absent)
    add_finding(to_string(site) + ": mask " + hex(mask) + " of warp " + std::to_string(warp) +
                " names lanes " + ranges(bits(absent)) + ", which have exited or do not exist");
  mask &= ~absent;

  auto& meetings = meetings_[warp];
  size_t at = 0;
  while (at < meetings.size() && !(meetings[at].mask == mask && same(meetings[at].site, site) &&
                                   !(meetings[at].arrived >> lane & 1)))
    ++at;
  if (at == meetings.size()) meetings.push_back({site, mask, 0, orders_memory, {}});
  meetings[at].arrived |= 1u << lane;
  meetings[at].values[lane] = value;
  if (meetings[at].arrived == mask) {
    finish(warp, at);  // the last one goes straight on
  } else {
    t.mask = mask;
    wait(State::kAtWarp, site);
  }
}

void Block::finish(int warp, size_t at) {
  const Meeting meeting = meetings_[warp][at];
  meetings_[warp].erase(meetings_[warp].begin() + static_cast<int64_t>(at));
  if (meeting.orders_memory) race::warp_barrier(warp, meeting.mask);
  for (int i = 0; i < 32; ++i) {
    if (!(meeting.mask >> i & 1)) continue;
    Thread& t = threads_[warp * 32 + i];
    std::copy(meeting.values, meeting.values + 32, t.lanes);
    if (t.state == State::kAtWarp) t.state = State::kReady;
  }
}

// The running thread has returned from the kernel: lanes that wait for it must not wait for ever.
void Block::exited(int thread) {
  threads_[thread].state = State::kDone;
  const int warp = thread / 32, lane = thread % 32;
  auto& meetings = meetings_[warp];
  for (size_t at = 0; at < meetings.size();) {
    Meeting& meeting = meetings[at];
    if (meeting.mask >> lane & 1 && !(meeting.arrived >> lane & 1)) {
      add_finding(to_string(meeting.site) + ": lane " + std::to_string(lane) + " of mask " +
                  hex(meeting.mask) + " has exited without coming");
      meeting.mask &= ~(1u << lane);
      if (meeting.arrived == meeting.mask) {
        finish(warp, at);
        continue;
      }
    }
    ++at;
  }
}

void Block::report_standstill() {
  // who waits where, threads in ranges
  std::map<std::string, std::vector<int>> places;
  for (int i = 0; i < size_; ++i) {
    const Thread& t = threads_[i];
    std::string place;
    if (t.state == State::kAtBarrier) place = "wait at __syncthreads, " + to_string(t.site);
    if (t.state == State::kAtWarp)
      place = "wait for the lanes of mask " + hex(t.mask) + " at " + to_string(t.site);
    if (t.state == State::kDone) place = "have exited";
    places[place].push_back(i);
  }
  std::string text = "standstill:";
  for (const auto& [place, list] : places)
    text += (text.back() == ':' ? " threads " : "; threads ") + ranges(list) + " " + place;
  add_finding(text);
}

}  // namespace

std::string to_string(const Schedule& schedule) {
  switch (schedule.order) {
    case Schedule::Order::kForward:
      return "forward";
    case Schedule::Order::kReverse:
      return "reverse";
    case Schedule::Order::kRandom:
      return "random " + std::to_string(schedule.seed);
  }
  return "";
}

std::vector<Schedule> schedules() {
  using Order = Schedule::Order;
  return {{Order::kForward, 0},
          {Order::kReverse, 0},
          {Order::kRandom, 1},
          {Order::kRandom, 2},
          {Order::kRandom, 3}};
}

FarDevice::FarDevice(int processors, int64_t first, int64_t count) {
  device_processors = processors;
  first_block = first;
  block_count = count;
}
FarDevice::~FarDevice() {
  device_processors = kProcessors;
  first_block = 0;
  block_count = INT64_MAX;
}
int processors() { return device_processors; }

void set_schedule(const Schedule& schedule) { block().set_schedule(schedule); }

std::vector<std::string> take_findings() {
  finding_keys().clear();
  return std::exchange(findings(), {});
}

void add_finding(const std::string& text, const std::string& key) {
  ++reports;
  if (findings().size() < kMaxFindings && finding_keys().insert(key.empty() ? text : key).second)
    findings().push_back(text);
}

std::string to_string(const Site& site) {
  const char* name = std::strrchr(site.file, '/');
  return std::string(name ? name + 1 : site.file) + ":" + std::to_string(site.line);
}

cudaError_t run_grid(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*),
                     void* argument) {
  const dim3 grid = config.gridDim, threads = config.blockDim;
  const uint64_t size = uint64_t{threads.x} * threads.y * threads.z;
  if (size == 0 || size > kMaxThreads || threads.z > 64 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  const auto limit = shared_limits().find(kernel);
  if (config.dynamicSmemBytes >
      (limit == shared_limits().end() ? kDefaultSharedBytes : limit->second))
    return cudaErrorInvalidValue;

  const int64_t before = reports;
  race::begin_grid();
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
  for (int64_t i : block().order(std::clamp<int64_t>(blocks - first_block, 0, block_count))) {
    i += first_block;
    const auto n = static_cast<uint64_t>(i);
    const uint3 index = {static_cast<unsigned>(n % grid.x),
                         static_cast<unsigned>(n / grid.x % grid.y),
                         static_cast<unsigned>(n / grid.x / grid.y)};
    block().run(config, index, i, body, argument);
  }
  return reports == before ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t set_dynamic_shared_limit(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kMaxSharedBytes) return cudaErrorInvalidValue;
  shared_limits()[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

void sync_threads(Site site) { block().sync_threads(false, site); }

int sync_threads_count(bool predicate, Site site) {
  block().sync_threads(predicate, site);
  return block().current().count;
}

void sync_warp(uint32_t mask, Site site) { block().meet(mask, 0, true, site); }

void gather(uint32_t mask, uint64_t value, uint64_t lanes[32], Site site) {
  block().meet(mask, value, false, site);
  std::copy(block().current().lanes, block().current().lanes + 32, lanes);
}

uint64_t shuffle(Exchange how, uint32_t mask, uint64_t value, unsigned operand, int width,
                 Site site) {
  const int lane = block().lane();
  const int segment = lane & ~(width - 1), delta = static_cast<int>(operand & 31);
  int source = lane;
  switch (how) {
    case Exchange::kIndex:
      source = segment | (delta & (width - 1));
      break;
    case Exchange::kUp:
      source = lane - delta < segment ? lane : lane - delta;
      break;
    case Exchange::kDown:
      source = lane + delta >= segment + width ? lane : lane + delta;
      break;
    case Exchange::kXor:
      source = (lane ^ delta) >= segment + width ? lane : lane ^ delta;
      break;
  }
  block().meet(mask, value, false, site);
  if (!(mask >> source & 1)) {
    add_finding(to_string(site) + ": lane " + std::to_string(lane) + " reads lane " +
                std::to_string(source) + ", which is not in mask " + hex(mask));
    return ~uint64_t{0};
  }
  return block().current().lanes[source];
}

void* dynamic_shared() { return block().dynamic_shared(); }
int lane() { return block().lane(); }
void trap(const char* why, Site site) { add_finding(to_string(site) + ": " + why); }

}  // namespace cuda_host
