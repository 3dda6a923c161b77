// A block of CUDA threads on one CPU thread: each is a fiber that runs until it waits for others.
// The schedule decides who goes first, so that code which depends on an order is found by trying
// several; what the hardware forbids or leaves undefined becomes a finding, in words.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

namespace cuda_host {

struct Schedule {
  enum class Order { kForward, kReverse, kRandom };
  Order order = Order::kForward;
  uint64_t seed = 0;  // kRandom: blocks and threads in another order at every turn
};
std::string to_string(const Schedule& schedule);
// Forward, reverse and three random ones: what every kernel test runs under.
std::vector<Schedule> schedules();
void set_schedule(const Schedule& schedule);

// While it lives, a device of so many multiprocessors, of which only blocks [first, first + count)
// of every grid run (a grid of fewer blocks runs none of them): for tests of index arithmetic on
// shapes that nobody could walk.
struct FarDevice {
  FarDevice(int processors, int64_t first, int64_t count);
  ~FarDevice();
  FarDevice(const FarDevice&) = delete;
  FarDevice& operator=(const FarDevice&) = delete;
};
int processors();  // of the device: two, so that grid-stride loops turn more than once

// What went wrong since the last call, at most one line per place; empty is good.
std::vector<std::string> take_findings();
// `key`: findings of one key are reported once; the text itself when empty.
void add_finding(const std::string& text, const std::string& key = "");

// Where a device function was called; from default arguments, so it needs no debug information.
struct Site {
  const char* file = "";
  int line = 0;
};
std::string to_string(const Site& site);  // "kernel.cu:41"

// Runs `body(argument)` once per thread of the grid, block after block. The error is what a launch
// returns; findings are added besides.
cudaError_t run_grid(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*),
                     void* argument);
// The most dynamic shared memory that launches of `kernel` may ask for (48 KiB unless raised).
cudaError_t set_dynamic_shared_limit(const void* kernel, int bytes);

// --- for device.h: called by the running thread ---

void sync_threads(Site site);
int sync_threads_count(bool predicate, Site site);
void sync_warp(uint32_t mask, Site site);
void* dynamic_shared();

// How a lane's value reaches another.
enum class Exchange { kIndex, kUp, kDown, kXor };
// `value` as it leaves lane `lane +- operand` of a segment of `width` lanes; up to 8 bytes.
uint64_t shuffle(Exchange how, uint32_t mask, uint64_t value, unsigned operand, int width,
                 Site site);
// The values of every lane in `mask`, for votes and reductions: lanes[i] is undefined outside it.
void gather(uint32_t mask, uint64_t value, uint64_t lanes[32], Site site);

int lane();
void trap(const char* why, Site site);  // __trap, assert: a finding; the thread goes on

}  // namespace cuda_host
