#include "engine/step/ranks.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "engine/base/error.h"

namespace lehr::step {
namespace {

bool is_power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

// one after the other, in double: counts and float32 values are exact
at::Tensor flat_values(const NamedTensors& tensors) {
  std::vector<at::Tensor> parts;
  for (const auto& t : tensors) parts.push_back(t.tensor.detach().flatten().to(at::kDouble));
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

Ranks::Ranks(dist::World& world, NamedTensors trained, NamedTensors buffers, int64_t shards,
             const BucketOptions& options)
    : world_(world), buffers_(std::move(buffers)), shards_(shards), layout_(trained) {
  if (shards == 0) {
    buckets_ = std::make_unique<Buckets>(world, trained, options);
    return;
  }
  if (!is_power_of_two(shards) || !is_power_of_two(world.size()) || shards < world.size())
    throw Error(Code::kRecipe,
                fmt::format("{} logical shards on {} rank(s): both must be powers of two, and no "
                            "more ranks than shards",
                            shards, world.size()),
                "parallelism.logical_shards", "write for example 8 for up to 8 ranks");
}

std::vector<double> Ranks::total(const std::vector<std::vector<double>>& rows, size_t columns) {
  TreeSum tree;
  at::Tensor sum = at::zeros({static_cast<int64_t>(columns)}, at::kDouble);
  for (const auto& row : rows) {
    const at::Tensor values = at::tensor(row, at::kDouble);
    if (fixed_order())
      tree.add(values);
    else
      sum.add_(values);
  }
  if (fixed_order()) sum = tree.take();
  if (world_.size() > 1) fixed_order() ? world_.sum_in_tree(sum) : world_.sum(sum);
  const double* data = sum.const_data_ptr<double>();
  return {data, data + columns};
}

void Ranks::share_buffers() {
  if (buffers_.empty() || world_.size() == 1) return;
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = flat_values(buffers_);
  world_.broadcast(flat);
  set_values(buffers_, flat);
}

void Ranks::begin_shards() {
  gradient_tree_ = {}, buffer_tree_ = {};  // a step that threw may have left some
  buffers_before_ = flat_values(buffers_);
}

void Ranks::end_shard(const Tensors& gradients) {
  const c10::NoGradGuard no_grad;
  gradient_tree_.add(layout_.join(gradients));
  if (buffers_.empty()) return;
  // what this shard has moved, and whether it has; the next one begins where this did
  const bool moved = std::any_of(gradients.begin(), gradients.end(),
                                 [](const at::Tensor& g) { return g.defined(); });
  const at::Tensor now = flat_values(buffers_) - buffers_before_;
  buffer_tree_.add(at::cat({now, at::full({1}, moved ? 1.0 : 0.0, at::kDouble)}));
  set_values(buffers_, buffers_before_);
}

Tensors Ranks::end_shards() {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = gradient_tree_.take();
  if (world_.size() > 1) world_.sum_in_tree(flat);
  if (!buffers_.empty()) {
    const at::Tensor moves = buffer_tree_.take();
    if (world_.size() > 1) world_.sum_in_tree(moves);
    const double shards = moves[-1].item<double>();
    if (shards > 0) set_values(buffers_, buffers_before_ + moves.slice(0, 0, -1) / shards);
  }
  return layout_.split(flat);
}

}  // namespace lehr::step
