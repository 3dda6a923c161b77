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

// one after the other, in double: counts and float32 values are exact
at::Tensor flat_values(const NamedTensors& tensors) {
  std::vector<at::Tensor> parts;
  for (const auto& t : tensors)
    parts.push_back(t.tensor.detach().flatten().to(at::kCPU, at::kDouble));
  return parts.empty() ? at::empty({0}, at::kDouble) : at::cat(parts);
}

void set_values(const NamedTensors& tensors, const at::Tensor& flat) {
  int64_t offset = 0;
  for (const auto& t : tensors) {
    at::Tensor target = t.tensor.detach();
    target.copy_(flat.slice(0, offset, offset + target.numel()).view(target.sizes()));
    offset += target.numel();
  }
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

Ranks::Ranks(dist::World& world, NamedTensors trained, NamedTensors buffers,
             const RanksOptions& options)
    : world_(world), buffers_(std::move(buffers)), options_(options), layout_(trained) {
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

std::function<Counts()> Ranks::begin_counts(const std::vector<Counts>& mine) {
  const auto ranks = static_cast<size_t>(world_.size()), rank = static_cast<size_t>(world_.rank());
  TreeSum tree;
  at::Tensor sum = at::zeros({2}, at::kDouble);
  for (const Counts& one : mine) {
    const at::Tensor values = at::tensor({one.weight, one.samples}, at::kDouble);
    if (fixed_order())
      tree.add(values);
    else
      sum.add_(values);
  }
  if (fixed_order()) {
    sum = tree.take();
    if (ranks > 1) world_.sum_in_tree(sum);
    return [sum] { return Counts{sum[0].item<double>(), sum[1].item<double>()}; };
  }
  if (sends_each_backward() || options_.count_backwards) {
    Numbers backwards(ranks);
    backwards[rank] = static_cast<double>(mine.size());
    sum = at::cat({sum, at::tensor(backwards, at::kDouble)});
  }
  const std::shared_ptr<dist::Pending> pending = world_.begin_sum(sum);
  return [sum, pending] {
    pending->wait();
    Counts counts{sum[0].item<double>(), sum[1].item<double>()};
    if (sum.numel() > 2) {
      counts.backwards = sum.slice(0, 2).max().to(at::kLong).item<int64_t>();
      counts.fewest = sum.slice(0, 2).min().to(at::kLong).item<int64_t>();
    }
    return counts;
  };
}

void Ranks::end_backward(Tensors* gradients) {
  buckets_->send_rest(*gradients);
  buckets_->wait();
  for (auto& gradient : *gradients) gradient.reset();
}

// One more sum carries all that is small; it travels beside the last bucket, unless it waits for
// the norm of rows that the buckets bring.
Ranks::Sums Ranks::finish(Tensors* gradients, const Numbers& losses, Numbers aside,
                          bool has_statistics) {
  if (fixed_order()) return finish_tree(gradients, losses, std::move(aside));
  const c10::NoGradGuard no_grad;
  const auto trained = static_cast<int64_t>(gradients->size());
  const auto asides = static_cast<int64_t>(aside.size());
  buckets_->send_rest(*gradients);
  Numbers small{std::accumulate(losses.begin(), losses.end(), 0.0), 0.0,
                has_statistics ? 1.0 : 0.0};
  small.insert(small.end(), aside.begin(), aside.end());
  const Numbers present = buckets_->present();
  small.insert(small.end(), present.begin(), present.end());
  at::Tensor sum = at::cat({at::tensor(small, at::kDouble), flat_values(buffers_)});
  if (!has_statistics) sum.slice(0, static_cast<int64_t>(small.size())).zero_();
  std::unique_ptr<dist::Pending> pending;
  if (!shares()) pending = world_.begin_sum(sum);
  buckets_->wait();
  *gradients = buckets_->take();
  if (shares()) {
    const double norm = global_norm(*gradients);
    sum[1].fill_(norm * norm);
    pending = world_.begin_sum(sum);
  }
  pending->wait();
  const double* at = sum.const_data_ptr<double>();
  Sums sums;
  sums.loss = at[0];
  if (shares()) sums.norm = std::sqrt(at[1] / (replicas_ ? replicas_->size() : 1));
  sums.aside.assign(at + 3, at + 3 + asides);
  for (int64_t i = 0; i < trained; ++i)
    if (at[3 + asides + i] == 0) (*gradients)[static_cast<size_t>(i)].reset();
  kept_statistics_.reset();
  if (at[2] > 0) {
    kept_statistics_ = sum.slice(0, 3 + asides + trained).div_(at[2]);
    sums.finite_statistics = all_finite(kept_statistics_);
  }
  return sums;
}

void Ranks::share_update(const Tensors& weights) {
  if (shares()) buckets_->share_rows(weights);
  if (kept_statistics_.defined() && world_.size() > 1) set_values(buffers_, kept_statistics_);
}

void Ranks::begin_shards() {
  gradient_tree_ = {}, moves_tree_ = {};  // a step that threw may have left some
  buffers_before_ = flat_values(buffers_);
}

void Ranks::end_shard(const Tensors& gradients) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = layout_.empty();
  Numbers present;
  for (size_t i = 0; i < gradients.size(); ++i) {
    present.push_back(gradients[i].defined() ? 1 : 0);
    gradients[i].defined() ? layout_.put(flat, i, gradients[i]) : layout_.zero(flat, i);
  }
  gradient_tree_.add(flat);
  // what this shard has moved, and whether it has; the next one begins where this did
  const double moved = *std::max_element(present.begin(), present.end());
  present.push_back(moved);
  moves_tree_.add(
      at::cat({flat_values(buffers_) - buffers_before_, at::tensor(present, at::kDouble)}));
  set_values(buffers_, buffers_before_);
}

double Ranks::total(const Numbers& values) {
  TreeSum tree;
  for (double value : values) tree.add(at::full({1}, value, at::kDouble));
  const at::Tensor sum = tree.take();
  if (world_.size() > 1) world_.sum_in_tree(sum);
  return sum.item<double>();
}

Ranks::Sums Ranks::finish_tree(Tensors* gradients, const Numbers& losses, Numbers aside) {
  const c10::NoGradGuard no_grad;
  Sums sums;
  if (world_.size() > 1 && !aside.empty()) {
    const at::Tensor all = at::tensor(aside, at::kDouble);
    world_.sum(all);
    aside.assign(all.const_data_ptr<double>(), all.const_data_ptr<double>() + all.numel());
  }
  sums.aside = std::move(aside);
  if (losses.empty()) return sums;
  const at::Tensor flat = gradient_tree_.take(), moves = moves_tree_.take();
  if (world_.size() > 1) {
    world_.sum_in_tree(flat);
    world_.sum_in_tree(moves);
  }
  const int64_t numbers = moves.numel() - static_cast<int64_t>(layout_.count()) - 1;
  const double* present = moves.const_data_ptr<double>() + numbers;
  for (size_t i = 0; i < layout_.count(); ++i)
    (*gradients)[i] = present[i] == 0 ? at::Tensor() : layout_.rows(flat, i, 0);
  if (const double shards = present[layout_.count()]; shards > 0) {
    const at::Tensor kept = buffers_before_ + moves.slice(0, 0, numbers) / shards;
    sums.finite_statistics = all_finite(kept);
    set_values(buffers_, kept);
  }
  sums.loss = total(losses);
  return sums;
}

}  // namespace lehr::step
