#include "engine/run/replicas.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "engine/base/host_bytes.h"
#include "engine/base/pulse.h"

namespace lehr::run {

namespace {

std::string digest_of(const NamedTensors& tensors, DeviceRuntime* device) {
  Xxh3 hash;
  for_each_piece(tensors, device,
                 [&](const void* data, uint64_t bytes) { hash.update(data, bytes); });
  return hash.digest();
}

}  // namespace

struct Replicas::Verdict {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<bool> same;
};

Replicas::~Replicas() {
  if (reading_.joinable()) reading_.join();
  if (verdict_) decide(true);
}

void Replicas::decide(bool same) {
  const std::lock_guard lock(verdict_->mutex);
  if (!verdict_->same) verdict_->same = same;
  verdict_->changed.notify_all();
}

void Replicas::require_same(const NamedTensors& tensors, int64_t step) {
  if (world_.size() == 1) return;
  settle();
  step_ = step, digest_ = digest_of(tensors, device_);
  if (world_.any(world_.broadcast_text(digest_) != digest_)) name_the_odd();
}

void Replicas::begin(NamedTensors tensors, int64_t step) {
  if (world_.size() == 1) return;
  settle();
  step_ = step, is_under_way_ = true;
  verdict_ = std::make_shared<Verdict>();
  reading_ = std::thread([this, tensors = std::move(tensors)] {
    try {
      // a team of threads beside the one that trains would fight with it for the cores
      at::get_num_threads();  // its first call in a thread sets the number
      omp_set_num_threads(1);
      digest_ = digest_of(tensors, device_);
    } catch (...) {
      failure_ = std::current_exception();
    }
  });
}

void Replicas::finish_reading() {
  if (!reading_.joinable()) return;
  reading_.join();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// A digest in pieces of which float64 holds the sum over a million ranks: it is so many times one's
// own, for all of them, exactly where all are alike.
static std::array<double, 4> pieces_of(const std::string& digest) {
  std::array<double, 4> pieces{};
  for (size_t i = 0; i < pieces.size(); ++i)
    pieces[i] = static_cast<double>(std::stoul(digest.substr(8 * i, 8), nullptr, 16));
  return pieces;
}

Replicas::Numbers Replicas::tell() const {
  Numbers numbers{};
  if (!is_under_way_ || reading_.joinable()) return numbers;
  numbers[0] = 1;
  const auto pieces = pieces_of(digest_);
  std::copy(pieces.begin(), pieces.end(), numbers.begin() + 1);
  return numbers;
}

void Replicas::hear(const double* summed) {
  if (!is_under_way_ || summed[0] < world_.size()) return;
  is_under_way_ = false;
  const auto pieces = pieces_of(digest_);
  const bool same = std::equal(pieces.begin(), pieces.end(), summed + 1,
                               [&](double own, double sum) { return sum == own * world_.size(); });
  decide(same);
  if (!same) name_the_odd();
}

void Replicas::settle() {
  if (!is_under_way_) return;
  finish_reading();
  is_under_way_ = false;
  const bool same = !world_.any(world_.broadcast_text(digest_) != digest_);
  decide(same);
  if (!same) name_the_odd();
}

std::function<void()> Replicas::approval() const {
  if (!verdict_) return {};
  return [verdict = verdict_] {
    std::unique_lock lock(verdict->mutex);
    while (!verdict->changed.wait_for(lock, std::chrono::milliseconds(200),
                                      [&] { return verdict->same.has_value(); }))
      get_on();  // the steps that bring it have a limit of their own
    if (!*verdict->same)
      throw Error(Code::kRanks, "the ranks' weights differ, so this checkpoint is not kept");
  };
}

void Replicas::name_the_odd() {
  std::map<std::string, std::vector<size_t>> ranks_of;
  const auto all = world_.gather_text(digest_);
  for (size_t r = 0; r < all.size(); ++r) ranks_of[all[r]].push_back(r);
  const auto most = std::max_element(
      ranks_of.begin(), ranks_of.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  std::vector<size_t> odd;
  for (size_t r = 0; r < all.size(); ++r)
    if (all[r] != most->first) odd.push_back(r);
  const bool majority = 2 * most->second.size() > all.size();
  throw Error(
      Code::kRanks,
      majority ? fmt::format("after step {} the weights of rank {} differ from the other ranks'",
                             step_, fmt::join(odd, ", "))
               : fmt::format("after step {} the weights differ between ranks, and most of them do "
                             "not agree, so nothing says whose are right",
                             step_),
      "",
      "the memory of a machine may be faulty; the same command goes on from the newest checkpoint");
}

}  // namespace lehr::run
