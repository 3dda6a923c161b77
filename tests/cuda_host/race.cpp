// The race checker. The kernels of the `race` build are compiled with -fsanitize=thread, which
// calls a
// __tsan_* function before every access; these are ours instead of libtsan's. Beside every byte
// stand its last write and the last reads that a later write must be ordered after.
#include "tests/cuda_host/race.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/cuda_host/fiber.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cuda_host::race {
namespace {

// Where an access stands in the order of things. Blocks run one after another under rising serials;
// barriers of a block raise its epoch; __syncwarp raises a lane's clock.
struct Access {
  uint64_t serial = 0;  // of the block's run; 0: none
  uint32_t epoch = 0, clock = 0;
  uint16_t thread = 0;
  bool atomic = false;
  const void* pc = nullptr;  // or the Site of an atomic
};

struct LaneReads {
  std::array<Access, 32> by_lane;
};

struct Cell {
  Access write;
  Access read;                       // the last one
  Access read_by_other_warp;         // the last one of another warp, in `read`'s epoch
  Access read_by_other_block;        // the last one of another block than `read`'s
  std::unique_ptr<LaneReads> lanes;  // of `read`'s warp and epoch, once two lanes have read
};

struct Page {
  Cell cells[4096];
};

struct State {
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
  uintptr_t last_number = ~uintptr_t{0};
  Page* last_page = nullptr;

  uint64_t serial = 0, grid_serial = 0;
  int64_t block = 0;
  uint32_t epoch = 0;
  int thread = -1;
  std::vector<std::array<uint32_t, 32>>
      clocks;  // [thread][lane]: what it knows of its warp's lanes
  std::unordered_map<uint64_t, int64_t> blocks;  // serial -> block, of this grid

  uintptr_t shared_begin = 0, shared_end = 0;  // static: the executable's TLS block
  uintptr_t dynamic_begin = 0, dynamic_end = 0;
};

// never destroyed: instrumented code may run until the very end
State& state() {
  static State* one = new State;
  return *one;
}

// the TLS block of the executable, for this thread
int find_tls(dl_phdr_info* info, size_t, void*) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
    state().shared_begin = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
    state().shared_end = state().shared_begin + info->dlpi_phdr[i].p_memsz;
  }
  return 1;  // the first one listed is the executable
}

bool is_shared(uintptr_t address) {
  const State& s = state();
  return (address >= s.shared_begin && address < s.shared_end) ||
         (address >= s.dynamic_begin && address < s.dynamic_end);
}

// threadIdx and its kin
bool is_builtin(const void* address) {
  const auto* a = static_cast<const char*>(address);
  auto inside = [a](const auto& variable) {
    const auto* begin = reinterpret_cast<const char*>(&variable);
    return a >= begin && a < begin + sizeof variable;
  };
  return inside(threadIdx) || inside(blockIdx) || inside(blockDim) || inside(gridDim);
}

Cell& cell(uintptr_t address) {
  State& s = state();
  const uintptr_t number = address >> 12;
  if (number != s.last_number) {
    auto& page = s.pages[number];
    if (!page) page = std::make_unique<Page>();
    s.last_page = page.get();
    s.last_number = number;
  }
  return s.last_page->cells[address & 4095];
}

// "planted.cu:41" of a return address, by addr2line: only reports pay for it
std::string place(const Access& access) {
  if (access.atomic) return to_string(*static_cast<const Site*>(access.pc));
  static std::unordered_map<const void*, std::string> known;
  std::string& text = known[access.pc];
  if (!text.empty()) return text;
  Dl_info info{};
  if (dladdr(access.pc, &info) == 0) return text = "?";
  const auto offset =
      reinterpret_cast<uintptr_t>(access.pc) - reinterpret_cast<uintptr_t>(info.dli_fbase) - 1;
  char command[512];
  std::snprintf(command, sizeof command, "addr2line -s -e '%s' 0x%lx 2>/dev/null", info.dli_fname,
                static_cast<unsigned long>(offset));
  char line[512] = "";
  if (FILE* pipe = popen(command, "r")) {
    if (!std::fgets(line, sizeof line, pipe)) line[0] = 0;
    pclose(pipe);
  }
  line[std::strcspn(line, " \n")] = 0;
  return text = line[0] ? line : "?";
}

std::string who(const Access& access) {
  const State& s = state();
  const auto found = s.blocks.find(access.serial);
  return "thread " + std::to_string(access.thread) + " of block " +
         (found == s.blocks.end() ? "?" : std::to_string(found->second));
}

// one finding per pair of places
void report(const char* what, uintptr_t address, const Access& before, const char* verb,
            const Access& now) {
  const std::string here = place(now), there = place(before);
  add_finding(std::string("race in ") + (is_shared(address) ? "shared" : "global") +
                  " memory: " + who(now) + " " + what + " at " + here + ", " + who(before) + " " +
                  verb + " it at " + there + ", and nothing orders the two",
              "race " + here + " " + there);
}

void report_uninitialised(const char* what, const Access& now) {
  const std::string here = place(now);
  add_finding("uninitialised shared memory: " + who(now) + " " + what + " at " + here +
                  " what no thread of its block has written",
              "uninitialised " + here);
}

Access make_access(const void* pc, bool atomic) {
  const State& s = state();
  Access a;
  a.serial = s.serial;
  a.epoch = s.epoch;
  a.thread = static_cast<uint16_t>(s.thread);
  a.clock = s.clocks[s.thread][s.thread % 32];
  a.atomic = atomic;
  a.pc = pc;
  return a;
}

// Is `before` certainly over when the current thread goes on?
bool ordered(const Access& before, bool shared) {
  const State& s = state();
  if (before.serial == 0 || before.serial < s.grid_serial) return true;
  if (before.serial != s.serial) return shared;  // a block starts with fresh shared memory
  if (before.epoch < s.epoch || before.thread == s.thread) return true;
  if (before.thread / 32 != s.thread / 32) return false;
  return s.clocks[s.thread][before.thread % 32] >= before.clock;
}

void read(uintptr_t address, const Access& now) {
  Cell& c = cell(address);
  const bool shared = is_shared(address);
  if (shared && c.write.serial != now.serial) report_uninitialised("reads", now);
  if (!ordered(c.write, shared)) report("reads", address, c.write, "wrote", now);

  const bool same_block = c.read.serial == now.serial;
  const bool same_epoch = same_block && c.read.epoch == now.epoch;
  if (same_epoch && c.read.thread / 32 == now.thread / 32) {
    if (c.read.thread != now.thread && !c.lanes) {
      c.lanes = std::make_unique<LaneReads>();
      c.lanes->by_lane[c.read.thread % 32] = c.read;
    }
  } else {
    if (!same_block && !shared) c.read_by_other_block = c.read;
    if (same_epoch) c.read_by_other_warp = c.read;
    c.lanes.reset();
  }
  if (c.lanes) c.lanes->by_lane[now.thread % 32] = now;
  c.read = now;
}

void write(uintptr_t address, const Access& now) {
  Cell& c = cell(address);
  const bool shared = is_shared(address);
  const char* what = now.atomic ? "updates" : "writes";
  if (!(c.write.atomic && now.atomic) && !ordered(c.write, shared))
    report(what, address, c.write, c.write.atomic ? "updated" : "wrote", now);
  for (const Access* before : {&c.read, &c.read_by_other_warp, &c.read_by_other_block})
    if (!ordered(*before, shared)) report(what, address, *before, "read", now);
  if (c.lanes) {
    for (const Access& before : c.lanes->by_lane)
      if (!ordered(before, shared)) report(what, address, before, "read", now);
    c.lanes.reset();
  }
  c.read = c.read_by_other_warp = c.read_by_other_block = Access{};
  c.write = now;
}

void access(const void* address, size_t bytes, bool writes, const void* pc) {
  if (state().thread < 0 || on_fiber_stack(address) || is_builtin(address)) return;
  const auto begin = reinterpret_cast<uintptr_t>(address);
  const Access now = make_access(pc, false);
  for (size_t i = 0; i < bytes; ++i) writes ? write(begin + i, now) : read(begin + i, now);
}

}  // namespace

void begin_grid() {
  State& s = state();
  if (s.shared_end == 0) dl_iterate_phdr(find_tls, nullptr);
  s.grid_serial = s.serial + 1;
  s.blocks.clear();
}

void begin_block(int64_t block, int threads) {
  State& s = state();
  ++s.serial;
  s.blocks[s.serial] = block;
  s.block = block;
  s.epoch = 0;
  s.clocks.assign(threads, {});
  for (int i = 0; i < threads; ++i) s.clocks[i][i % 32] = 1;
}

void begin_thread(int thread) { state().thread = thread; }
void end_block() { state().thread = -1; }
void block_barrier() { ++state().epoch; }

// every lane learns what all of them know, and starts a new clock
void warp_barrier(int warp, uint32_t mask) {
  auto& clocks = state().clocks;
  std::array<uint32_t, 32> all{};
  auto each = [&](auto&& visit) {
    for (int lane = 0; lane < 32; ++lane)
      if (mask >> lane & 1) visit(clocks[warp * 32 + lane], lane);
  };
  each([&](auto& known, int) {
    for (int i = 0; i < 32; ++i) all[i] = std::max(all[i], known[i]);
  });
  each([&](auto& known, int lane) {
    known = all;
    ++known[lane];
  });
}

void set_dynamic_shared(const void* begin, size_t bytes) {
  state().dynamic_begin = reinterpret_cast<uintptr_t>(begin);
  state().dynamic_end = state().dynamic_begin + bytes;
}

void atomic(const void* address, size_t bytes, Site site) {
  if (state().thread < 0) return;
  // the site must outlive the access
  static std::map<std::pair<const char*, int>, Site> sites;
  const Site& kept = sites.emplace(std::pair(site.file, site.line), site).first->second;
  const Access now = make_access(&kept, true);
  const auto begin = reinterpret_cast<uintptr_t>(address);
  for (size_t i = 0; i < bytes; ++i) {
    if (is_shared(begin + i) && cell(begin + i).write.serial != now.serial)
      report_uninitialised("updates", now);
    write(begin + i, now);
  }
}

}  // namespace cuda_host::race

// --- what gcc calls for -fsanitize=thread; the return address is the place ---

#define CUDA_HOST_HOOK(name, bytes, writes)                                       \
  extern "C" void __tsan_##name(void* address) {                                  \
    cuda_host::race::access(address, bytes, writes, __builtin_return_address(0)); \
  }
#define CUDA_HOST_HOOKS(bytes)                        \
  CUDA_HOST_HOOK(read##bytes, bytes, false)           \
  CUDA_HOST_HOOK(write##bytes, bytes, true)           \
  CUDA_HOST_HOOK(unaligned_read##bytes, bytes, false) \
  CUDA_HOST_HOOK(unaligned_write##bytes, bytes, true) \
  CUDA_HOST_HOOK(volatile_read##bytes, bytes, false)  \
  CUDA_HOST_HOOK(volatile_write##bytes, bytes, true)
CUDA_HOST_HOOKS(1)
CUDA_HOST_HOOKS(2)
CUDA_HOST_HOOKS(4)
CUDA_HOST_HOOKS(8)
CUDA_HOST_HOOKS(16)

extern "C" {
void __tsan_read_range(void* address, unsigned long bytes) {
  cuda_host::race::access(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long bytes) {
  cuda_host::race::access(address, bytes, true, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
