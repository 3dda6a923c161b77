// What a small step costs: time from exec to the first optimizer step done, peak resident memory,
// and steps per second of an MLP 32-64-32-1 with fused AdamW on one thread. tests/peers/mlp_step.py
// prints the same of PyTorch. With --startup: only the first two.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <sstream>

#include "engine/step/step.h"
#include "tests/step/toy.h"

namespace {

using namespace lehr;

// Seconds since this process was started, by the kernel's clock (a tick of 10 ms).
double seconds_since_exec() {
  std::ifstream file("/proc/self/stat");
  std::string stat((std::istreambuf_iterator<char>(file)), {});
  std::istringstream rest(stat.substr(stat.rfind(')') + 2));
  std::string field;
  for (int i = 3; i <= 22; ++i) rest >> field;  // starttime
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 -
         std::stod(field) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double peak_mb() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bool startup_only = argc > 1 && std::string(argv[1]) == "--startup";
  at::set_num_threads(1);
  auto model = step::toy::mlp({.widths = {32, 64, 32, 1}}, 1, /*relu=*/true);
  step::Step step(model, FixedFields({{"loss.name", std::string("binary_cross_entropy")}}), {});
  step.take({step::toy::classes(256, 32, 2)});
  fmt::print("exec -> first optimizer step {:.3f} s, peak {:.0f} MB\n", seconds_since_exec(),
             peak_mb());
  if (startup_only) return 0;

  for (int64_t size : {64, 256, 1024}) {
    std::vector<Batch> batches;
    for (int i = 0; i < 8; ++i)
      batches.push_back(step::toy::classes(size, 32, 2, static_cast<uint64_t>(i)));
    std::vector<double> times;
    const int steps = static_cast<int>(std::max<int64_t>(100, 262144 / size));
    for (int repeat = 0; repeat < 6; ++repeat) {
      auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < steps; ++i) step.take({batches[static_cast<size_t>(i % 8)]});
      std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      if (repeat > 0) times.push_back(took.count() / steps);  // the first warms up
    }
    std::sort(times.begin(), times.end());
    double t = times[times.size() / 2];
    fmt::print("b{:<5} {:7.1f} us/step  {:8.0f} steps/s  {:6.0f}k rows/s\n", size, t * 1e6, 1 / t,
               static_cast<double>(size) / t / 1e3);
  }
}
