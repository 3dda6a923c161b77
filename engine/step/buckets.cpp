#include "engine/step/buckets.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "engine/base/error.h"

namespace lehr::step {

constexpr int64_t kFirstBytes = 1 << 20;

// called when a backward has left its gradient at the parameter
class Buckets::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(Buckets* buckets, size_t i) : buckets_(buckets), i_(i) {}
  void operator()(const torch::autograd::Variable&) override { buckets_->arrived(i_); }

 private:
  Buckets* buckets_;
  size_t i_;
};

Buckets::Buckets(dist::World& world, const NamedTensors& trained, const BucketOptions& options)
    : world_(world),
      trained_(trained),
      options_(options),
      parts_(options.shared ? world.size() : 1),
      part_(options.shared ? world.rank() : 0),
      places_(trained.size()) {
  std::vector<size_t> order = options.order;
  for (size_t i = 0; options.order.empty() && i < trained_.size(); ++i) order.push_back(i);
  std::reverse(order.begin(), order.end());  // as a backward goes
  std::vector<size_t> members;
  int64_t bytes = 0;
  for (size_t i : order) {
    members.push_back(i);
    bytes += trained_[i].tensor.numel() * 4;
    const int64_t most = buckets_.empty() ? std::min(options.bytes, kFirstBytes) : options.bytes;
    if (bytes < most && i != order.back()) continue;
    NamedTensors parameters;
    for (size_t member : members) parameters.push_back(trained_[member]);
    auto bucket =
        std::make_unique<Bucket>(Bucket{members, FlatGradients(parameters, parts_), {}, {}});
    if (!options.shared) bucket->flat = bucket->layout.empty();
    for (size_t k = 0; k < members.size(); ++k) places_[members[k]] = {bucket.get(), k};
    buckets_.push_back(std::move(bucket));
    members.clear(), bytes = 0;
  }
  for (size_t i = 0; i < trained_.size(); ++i)
    torch::autograd::impl::set_post_acc_grad_hooks(trained_[i].tensor,
                                                   std::make_unique<Hook>(this, i));
}

Buckets::~Buckets() {
  for (const auto& p : trained_) torch::autograd::impl::set_post_acc_grad_hooks(p.tensor, nullptr);
}

void Buckets::watch(bool send) { watching_ = true, sending_ = send; }

// where a gradient lives in its bucket
at::Tensor Buckets::view(const Place& place) const {
  return place.bucket->layout.rows(place.bucket->flat, place.index, 0);
}

void Buckets::arrived(size_t i) {
  if (!watching_) return;
  at::Tensor& gradient = trained_[i].tensor.mutable_grad();
  Place& place = places_[i];
  if (sending_ && place.here)
    throw Error(Code::kInternal,
                "a second gradient of " + trained_[i].name + " in one backward: it may be sent");
  const bool in_place = !options_.shared && gradient.scalar_type() == at::kFloat;
  if (in_place || sending_) put(i, gradient);
  if (in_place) gradient = view(place);
  if (!sending_) return;
  if (!in_place) gradient.reset();
  place.here = true;
  ++place.bucket->present;
  send_full();
}

void Buckets::put(size_t i, const at::Tensor& gradient) {
  const c10::NoGradGuard no_grad;
  const Place& place = places_[i];
  Bucket& bucket = *place.bucket;
  if (!bucket.flat.defined()) bucket.flat = bucket.layout.empty();
  if (options_.shared || !gradient.is_alias_of(bucket.flat))
    bucket.layout.put(bucket.flat, place.index, gradient);
}

void Buckets::send_full() {
  for (; next_ < buckets_.size(); ++next_) {
    Bucket& bucket = *buckets_[next_];
    if (bucket.present < bucket.members.size()) return;
    send(bucket);
  }
}

void Buckets::send(Bucket& bucket) {
  const c10::NoGradGuard no_grad;
  if (!bucket.flat.defined()) bucket.flat = bucket.layout.empty();
  for (size_t k = 0; k < bucket.members.size(); ++k) {
    Place& place = places_[bucket.members[k]];
    if (!place.here) bucket.layout.zero(bucket.flat, k);
    place.present |= place.here;
  }
  bucket.sent = options_.bf16 ? bucket.flat.to(at::kBFloat16) : bucket.flat;
  if (!options_.shared) {
    bucket.pending = world_.begin_sum(bucket.sent);
    return;
  }
  bucket.flat.reset();
  bucket.got = at::empty({bucket.sent.numel() / parts_}, bucket.sent.options());
  bucket.pending = world_.begin_reduce_scatter(bucket.sent, bucket.got);
  // two under way keep the line busy; more would hold what sharing is to save
  if (next_ >= 2) finish(*buckets_[next_ - 2]);
}

void Buckets::finish(Bucket& bucket) {
  if (!bucket.pending) return;
  bucket.pending->wait();
  bucket.pending.reset();
  if (options_.shared) {
    const at::Tensor got = bucket.got.to(at::kFloat);
    bucket.sum = bucket.sum.defined() ? bucket.sum.add_(got) : got;
  } else if (options_.bf16) {
    bucket.flat.copy_(bucket.sent);
  }
  bucket.sent.reset(), bucket.got.reset();
}

void Buckets::send_rest(const Tensors& gradients) {
  watching_ = false;
  for (size_t i = 0; i < trained_.size(); ++i) {
    if (places_[i].here || !gradients[i].defined()) continue;
    put(i, gradients[i]);
    places_[i].here = true;
  }
  for (; next_ < buckets_.size(); ++next_) send(*buckets_[next_]);
  next_ = 0;
}

void Buckets::wait() {
  const c10::NoGradGuard no_grad;
  for (auto& bucket : buckets_) {
    finish(*bucket);
    bucket->present = 0;
  }
  for (auto& place : places_) place.here = false;
}

std::vector<double> Buckets::present() const {
  std::vector<double> present;
  for (const auto& place : places_) present.push_back(place.present ? 1 : 0);
  return present;
}

Tensors Buckets::take() {
  std::vector<std::unique_ptr<dist::Pending>> pending;
  for (auto& bucket : buckets_)
    if (options_.replicas) pending.push_back(options_.replicas->begin_sum(bucket->sum));
  for (auto& sum : pending) sum->wait();
  Tensors sums(trained_.size());
  for (auto& bucket : buckets_) {
    const at::Tensor flat = options_.shared ? std::exchange(bucket->sum, {}) : bucket->flat;
    for (size_t k = 0; k < bucket->members.size(); ++k)
      sums[bucket->members[k]] = bucket->layout.rows(flat, k, part_);
  }
  for (auto& place : places_) place.present = false;
  return sums;
}

void Buckets::share_rows(const Tensors& weights) {
  const c10::NoGradGuard no_grad;
  struct Sent {
    const Bucket* bucket;
    at::Tensor flat;
    std::unique_ptr<dist::Pending> pending;
  };
  std::deque<Sent> under_way;
  const auto finish_first = [&] {
    const Sent first = std::move(under_way.front());
    under_way.pop_front();
    first.pending->wait();
    const auto& [bucket, flat, pending] = first;
    for (size_t k = 0; k < bucket->members.size(); ++k)
      bucket->layout.get(flat, k, weights[bucket->members[k]]);
  };
  for (const auto& bucket : buckets_) {
    const FlatGradients& layout = bucket->layout;
    const at::Tensor flat = layout.empty(), mine = layout.part(flat, part_);
    for (size_t k = 0; k < bucket->members.size(); ++k)
      if (at::Tensor rows = layout.rows(mine, k, part_); rows.defined())
        rows.copy_(rows_in(weights[bucket->members[k]],
                           part_of(weights[bucket->members[k]], parts_, part_)));
    under_way.push_back({bucket.get(), flat, world_.begin_all_gather(mine, flat)});
    if (under_way.size() > 2) finish_first();
  }
  while (!under_way.empty()) finish_first();
}

}  // namespace lehr::step
