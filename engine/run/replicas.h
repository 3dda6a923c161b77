// Gives the run the check that ranks hold the same weights, bit for bit.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "engine/base/named_tensor.h"
#include "engine/dist/world.h"

namespace lehr::run {

class Replicas {
 public:
  // `device`: where tensors may be; all bytes then cross to the host, at the speed of the link and
  // of the hash (some GB/s).
  Replicas(dist::World& world, DeviceRuntime* device) : world_(world), device_(device) {}
  ~Replicas();  // what is not known by then is taken for equal
  Replicas(const Replicas&) = delete;
  Replicas& operator=(const Replicas&) = delete;

  // All below are called by all ranks, and do nothing for one. What finds a difference throws
  // Error{kRanks} that names the ranks whose memory differs from most others', or says that there
  // is no majority.

  // Now, of each rank's own `tensors` after `step`.
  void require_same(const NamedTensors& tensors, int64_t step);
  // The same beside the steps that follow: tensors are read by another thread until
  // finish_reading(), which comes before they change; the ranks compare what was read with the sums
  // of their steps (tell, hear), or by settle().
  void begin(NamedTensors tensors, int64_t step);
  void finish_reading();
  using Numbers = std::array<double, 5>;
  Numbers tell() const;             // to be added up over the ranks,
  void hear(const double* summed);  // as many
  void settle();                    // now, if one is under way
  // For a thread that may publish what was begun last: waits for the result; throws Error{kRanks}
  // where ranks differ. Empty for one rank.
  std::function<void()> approval() const;

 private:
  struct Verdict;
  void decide(bool same);
  [[noreturn]] void name_the_odd();

  dist::World& world_;
  DeviceRuntime* const device_;
  std::thread reading_;
  std::exception_ptr failure_;
  int64_t step_ = 0;
  std::string digest_;  // of this rank
  bool is_under_way_ = false;
  std::shared_ptr<Verdict> verdict_;  // of what was begun last
};

}  // namespace lehr::run
