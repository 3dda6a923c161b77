#include "engine/step/buckets.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

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
    : world_(world), trained_(trained), bf16_(options.bf16), places_(trained.size()) {
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
    auto bucket = std::make_unique<Bucket>(Bucket{members, FlatGradients(parameters), {}, {}});
    bucket->flat = bucket->layout.empty();
    for (size_t k = 0; k < members.size(); ++k)
      places_[members[k]] = {bucket.get(), k, bucket->layout.place(bucket->flat, k)};
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

void Buckets::watch(bool last) { watching_ = true, last_ = last; }

void Buckets::arrived(size_t i) {
  if (!watching_) return;
  at::Tensor& gradient = trained_[i].tensor.mutable_grad();
  Place& place = places_[i];
  if (last_ && place.present)
    throw Error(Code::kInternal,
                "a second gradient of " + trained_[i].name + " in one backward: it may be sent");
  const bool in_place = gradient.scalar_type() == at::kFloat;
  if (in_place || last_) put(i, gradient);
  if (in_place) gradient = place.view;
  if (!last_) return;
  if (!in_place) gradient.reset();
  place.present = true;
  ++place.bucket->present;
  send_full();
}

void Buckets::put(size_t i, const at::Tensor& gradient) {
  const c10::NoGradGuard no_grad;
  at::Tensor& view = places_[i].view;
  if (!gradient.is_same(view)) view.copy_(gradient);
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
  for (size_t k = 0; k < bucket.members.size(); ++k) {
    Place& place = places_[bucket.members[k]];
    if (!place.present) place.view.zero_();
    bucket.layout.mark(bucket.flat, k).fill_(place.present ? 1 : 0);
  }
  bucket.sent = bf16_ ? bucket.flat.to(at::kBFloat16) : bucket.flat;
  bucket.pending = world_.begin_sum(bucket.sent);
}

void Buckets::sum(Tensors* gradients) {
  const c10::NoGradGuard no_grad;
  watching_ = false;
  for (size_t i = 0; i < trained_.size(); ++i) {
    if (places_[i].present || !(*gradients)[i].defined()) continue;
    put(i, (*gradients)[i]);
    places_[i].present = true;
  }
  for (; next_ < buckets_.size(); ++next_) send(*buckets_[next_]);
  next_ = 0;
  for (auto& bucket : buckets_) {
    bucket->pending->wait();
    bucket->pending.reset();
    if (bf16_) bucket->flat.copy_(bucket->sent);
    const Tensors of_all = bucket->layout.split(bucket->flat);
    for (size_t k = 0; k < of_all.size(); ++k) {
      (*gradients)[bucket->members[k]] = of_all[k];
      places_[bucket->members[k]].present = false;
    }
    bucket->present = 0;
  }
}

}  // namespace lehr::step
