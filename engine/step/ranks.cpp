#include "engine/step/ranks.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/error.h"
#include "engine/step/norm.h"

namespace lehr::step {
namespace {

bool is_power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

at::Device device_of(const NamedTensors& trained) {
  return trained.empty() ? at::Device(at::kCPU) : trained[0].tensor.device();
}

}  // namespace

void TreeSum::add(at::Tensor leaf) {
  // as one carries in binary: two branches of a level make one of the next
  for (size_t level = 0;; ++level) {
    if (level == branches_.size()) branches_.emplace_back();
    if (!branches_[level].defined()) {
      branches_[level] = std::move(leaf);
      return;
    }
    leaf = branches_[level].add_(leaf);
    branches_[level].reset();
  }
}

at::Tensor TreeSum::take() {
  at::Tensor top = branches_.empty() ? at::Tensor() : branches_.back();
  for (size_t level = 0; level + 1 < branches_.size(); ++level)
    if (branches_[level].defined())
      throw Error(Code::kInternal, "a tree of leaves that are no power of two");
  branches_.clear();
  return top;
}

Ranks::Ranks(dist::World& world, const NamedTensors& trained, const NamedTensors& buffers,
             const RanksOptions& options)
    : world_(world),
      device_(device_of(trained)),
      statistics_(buffers, device_),
      options_(options),
      layout_(trained) {
  check_ranks(options_, world.size());
  if (fixed_order()) return;
  split_world();
  buckets_ = std::make_unique<Buckets>(sharers_ ? *sharers_ : world, trained, options_.buckets);
}

void check_ranks(const RanksOptions& options, int64_t ranks) {
  const int64_t shards = options.shards;
  if (shards > 0) {
    if (is_power_of_two(shards) && is_power_of_two(ranks) && shards >= ranks) return;
    throw Error(Code::kRecipe,
                fmt::format("{} logical shards on {} rank(s): both must be powers of two, and no "
                            "more ranks than shards",
                            shards, ranks),
                "parallelism.logical_shards", "write for example 8 for up to 8 ranks");
  }
  const int64_t degree = shard_degree(options.zero_stage, options.shard_degree, ranks);
  if (ranks % degree != 0)
    throw Error(Code::kRecipe, fmt::format("{} ranks are no groups of {}", ranks, degree),
                "parallelism.data_parallel_shard_degree", "choose a divisor of the ranks");
}

int64_t shard_degree(int64_t zero_stage, int64_t asked, int64_t ranks) {
  if (zero_stage == 0) return 1;
  return asked == 0 ? ranks : asked;
}

void Ranks::split_world() {
  const int64_t size = world_.size();
  const int64_t degree = shard_degree(options_.zero_stage, options_.shard_degree, size);
  options_.buckets.shared = degree > 1;
  if (degree == 1 || degree == size) return;
  sharers_ = world_.split(static_cast<int>(world_.rank() / degree));
  replicas_ = world_.split(static_cast<int>(world_.rank() % degree));
  options_.buckets.replicas = replicas_.get();
}

int64_t Ranks::sharers() const {
  return !shares() ? 1 : sharers_ ? sharers_->size() : world_.size();
}

Rows Ranks::own_rows(const at::Tensor& parameter) const {
  if (!shares()) return part_of(parameter, 1, 0);
  const dist::World& sharers = sharers_ ? *sharers_ : world_;
  return part_of(parameter, sharers.size(), sharers.rank());
}

// What the ranks add up of a step: weight, samples and, where they are counted, each rank's
// backwards.
Ranks::Numbers Ranks::summands(const std::vector<Counts>& mine) const {
  TreeSum tree;
  at::Tensor sum = at::zeros({2}, at::kDouble);
  for (const Counts& one : mine) {
    const at::Tensor values = at::tensor({one.weight, one.samples}, at::kDouble);
    if (fixed_order())
      tree.add(values);
    else
      sum.add_(values);
  }
  if (fixed_order() && !mine.empty()) sum = tree.take();
  Numbers numbers{sum[0].item<double>(), sum[1].item<double>()};
  if (!counts_backwards()) return numbers;
  numbers.resize(2 + static_cast<size_t>(world_.size()));
  numbers[2 + static_cast<size_t>(world_.rank())] = static_cast<double>(mine.size());
  return numbers;
}

Counts Ranks::counts_of(const double* sums) const {
  Counts counts{sums[0], sums[1]};
  if (!counts_backwards()) return counts;
  const auto [fewest, most] = std::minmax_element(sums + 2, sums + 2 + world_.size());
  counts.backwards = static_cast<int64_t>(*most), counts.fewest = static_cast<int64_t>(*fewest);
  return counts;
}

std::function<Counts()> Ranks::begin_counts(const std::vector<Counts>& mine) {
  const at::Tensor sum = at::tensor(summands(mine), at::kDouble);
  std::shared_ptr<dist::Pending> pending;
  if (!fixed_order())
    pending = world_.begin_sum(sum);
  else if (world_.size() > 1)
    world_.sum_in_tree(sum);
  return [this, sum, pending] {
    if (pending) pending->wait();
    return counts_of(sum.const_data_ptr<double>());
  };
}

// Behind what else is added up: how many ranks know their part of the next step, and the parts.
void Ranks::append(Numbers* aside, const std::vector<Counts>* next) const {
  const Numbers counts = summands(next ? *next : std::vector<Counts>(1));
  aside->push_back(next ? 1 : 0);
  aside->insert(aside->end(), counts.begin(), counts.end());
}

void Ranks::take_apart(Numbers all, Sums* sums) const {
  const size_t counts = 2 + (counts_backwards() ? static_cast<size_t>(world_.size()) : 0);
  const double* known = all.data() + (all.size() - counts - 1);
  if (*known == world_.size()) sums->next = counts_of(known + 1);
  all.resize(all.size() - counts - 1);
  sums->aside = std::move(all);
}

void Ranks::end_backward(Tensors* gradients) {
  buckets_->send_rest(*gradients);
  buckets_->wait();
  for (auto& gradient : *gradients) gradient.reset();
}

// Beside what is on the device, from pinned memory, so that nobody waits.
at::Tensor Ranks::there(const Numbers& numbers) const {
  const at::Tensor host = at::tensor(numbers, at::kDouble);
  if (device_.is_cpu()) return host;
  DeviceRuntime* runtime = options_.runtime;
  return runtime ? runtime->copy_in(runtime->pin(host)) : host.to(device_);
}

// One more sum carries all that is small; it travels beside the last bucket, unless it waits for
// the norm of rows that the buckets bring.
Ranks::Sums Ranks::finish(Tensors* gradients, const Tensors& losses, Numbers aside,
                          const std::vector<Counts>* next, bool has_statistics) {
  append(&aside, next);
  if (fixed_order()) return finish_tree(gradients, losses, aside);
  const c10::NoGradGuard no_grad;
  const size_t asides = aside.size();
  buckets_->send_rest(*gradients);
  Numbers small{0, 0, has_statistics ? 1.0 : 0.0};  // loss, square of the norm
  small.insert(small.end(), aside.begin(), aside.end());
  const Numbers present = buckets_->present();
  small.insert(small.end(), present.begin(), present.end());
  const auto count = static_cast<int64_t>(small.size());
  at::Tensor sum = at::cat({there(small), statistics_.values()});
  at::Tensor loss = sum[0], square = sum[1];
  for (const auto& one : losses) loss.add_(one);
  if (!has_statistics) sum.slice(0, count).zero_();
  std::unique_ptr<dist::Pending> pending;
  if (!shares()) pending = world_.begin_sum(sum);
  buckets_->wait();
  *gradients = buckets_->take();
  const at::Tensor norm = global_norm(*gradients, options_.kernels);
  if (shares()) {
    if (norm.device() == square.device()) square.copy_(norm * norm);  // else this rank has no rows
    pending = world_.begin_sum(sum);
  }
  pending->wait();
  at::Tensor told =
      at::cat({sum.slice(0, 0, count), zero_if_finite({sum.slice(0, count)}).view(1)});
  if (!shares()) told = at::cat({told, norm.view(1)});
  told = told.cpu();
  const double* at = told.const_data_ptr<double>();
  Sums sums;
  sums.loss = at[0];
  sums.norm = shares() ? std::sqrt(at[1] / (replicas_ ? replicas_->size() : 1)) : at[count + 1];
  sums.finite_statistics = std::isfinite(at[count]);
  take_apart({at + 3, at + 3 + asides}, &sums);
  for (size_t i = 0; i < gradients->size(); ++i)
    if (at[3 + asides + i] == 0) (*gradients)[i].reset();
  kept_statistics_.reset();
  if (at[2] > 0) kept_statistics_ = sum.slice(0, count).div_(at[2]);
  return sums;
}

void Ranks::share_update(const Tensors& weights) {
  if (shares()) buckets_->share_rows(weights);
  if (kept_statistics_.defined() && world_.size() > 1) statistics_.set(kept_statistics_);
}

void Ranks::begin_shards() {
  gradient_tree_ = {}, moves_tree_ = {},
  numbers_tree_ = {};  // a step that threw may have left some
  statistics_before_ = statistics_.values();
}

void Ranks::end_shard(const Tensors& gradients, const at::Tensor& loss) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = layout_.empty();
  Numbers present;
  for (size_t i = 0; i < gradients.size(); ++i) {
    present.push_back(gradients[i].defined() ? 1 : 0);
    gradients[i].defined() ? layout_.put(flat, i, gradients[i]) : layout_.zero(flat, i);
  }
  gradient_tree_.add(flat);
  present.push_back(*std::max_element(present.begin(), present.end()));
  numbers_tree_.add(at::tensor(present, at::kDouble));
  // what this shard has moved; the next one begins where this did
  moves_tree_.add(
      at::cat({statistics_.values() - statistics_before_, loss.detach().to(at::kDouble).view(1)}));
  statistics_.set(statistics_before_);
}

Ranks::Sums Ranks::finish_tree(Tensors* gradients, const Tensors& losses, const Numbers& aside) {
  const c10::NoGradGuard no_grad;
  Sums sums;
  at::Tensor numbers = at::tensor(aside, at::kDouble);
  if (losses.empty()) {  // of none, and so of no rank
    if (world_.size() > 1) world_.sum_in_tree(numbers);
    take_apart(
        {numbers.const_data_ptr<double>(), numbers.const_data_ptr<double>() + numbers.numel()},
        &sums);
    return sums;
  }
  const at::Tensor flat = gradient_tree_.take(), moves = moves_tree_.take();
  numbers = at::cat({numbers_tree_.take(), numbers});
  if (world_.size() > 1)
    for (const auto& tensor : {flat, moves, numbers}) world_.sum_in_tree(tensor);
  const double* present = numbers.const_data_ptr<double>();
  for (size_t i = 0; i < layout_.count(); ++i)
    (*gradients)[i] = present[i] == 0 ? at::Tensor() : layout_.rows(flat, i, 0);
  const double* shards = present + layout_.count();
  take_apart({shards + 1, present + numbers.numel()}, &sums);
  const int64_t size = statistics_.size();
  at::Tensor kept = statistics_before_;
  if (*shards > 0) statistics_.set(kept = kept + moves.slice(0, 0, size) / *shards);
  const Numbers told =
      read({moves[size], global_norm(*gradients, options_.kernels), zero_if_finite({kept})});
  sums.loss = told[0], sums.norm = told[1];
  sums.finite_statistics = std::isfinite(told[2]);
  return sums;
}

}  // namespace lehr::step
