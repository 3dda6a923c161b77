#include "engine/dist/by_host.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

namespace lehr::dist {
namespace {

// A tensor's copy on the CPU, which is brought back; the tensor itself where it is there already.
class Crossed {
 public:
  explicit Crossed(at::Tensor tensor) : tensor_(std::move(tensor)), host_(tensor_.cpu()) {}
  // of one whose values do not matter before
  static Crossed for_result(at::Tensor tensor) {
    at::Tensor host = tensor.is_cpu() ? tensor : at::empty_like(tensor, at::kCPU);
    return {std::move(tensor), std::move(host)};
  }
  const at::Tensor& host() const { return host_; }
  void bring_back() {
    const c10::NoGradGuard no_grad;
    if (!tensor_.is_cpu()) tensor_.copy_(host_);
  }

 private:
  Crossed(at::Tensor tensor, at::Tensor host)
      : tensor_(std::move(tensor)), host_(std::move(host)) {}
  at::Tensor tensor_, host_;
};

struct Bringing : Pending {
  Bringing(std::unique_ptr<Pending> call, Crossed result)
      : call(std::move(call)), result(std::move(result)) {}
  void wait() override {
    call->wait();
    result.bring_back();
  }
  std::unique_ptr<Pending> call;
  Crossed result;
};

class ByHost : public World {
 public:
  explicit ByHost(std::unique_ptr<World> world) : world_(std::move(world)) {}
  int rank() const override { return world_->rank(); }
  int size() const override { return world_->size(); }
  void barrier(const std::string& what) override { world_->barrier(what); }
  void enter(const char* phase, int64_t step) override { world_->enter(phase, step); }
  int64_t store_calls() const override { return world_->store_calls(); }

  std::unique_ptr<Pending> begin_sum(at::Tensor tensor) override {
    Crossed crossed(std::move(tensor));
    auto call = world_->begin_sum(crossed.host());
    return std::make_unique<Bringing>(std::move(call), std::move(crossed));
  }
  void sum_in_tree(at::Tensor tensor) override {
    Crossed crossed(std::move(tensor));
    world_->sum_in_tree(crossed.host());
    crossed.bring_back();
  }
  std::unique_ptr<Pending> begin_reduce_scatter(at::Tensor all, at::Tensor mine) override {
    Crossed part = Crossed::for_result(std::move(mine));
    auto call = world_->begin_reduce_scatter(all.cpu(), part.host());
    return std::make_unique<Bringing>(std::move(call), std::move(part));
  }
  std::unique_ptr<Pending> begin_all_gather(at::Tensor mine, at::Tensor all) override {
    Crossed whole = Crossed::for_result(std::move(all));
    auto call = world_->begin_all_gather(mine.cpu(), whole.host());
    return std::make_unique<Bringing>(std::move(call), std::move(whole));
  }
  void broadcast(at::Tensor tensor, int root) override {
    Crossed crossed(std::move(tensor));
    world_->broadcast(crossed.host(), root);
    crossed.bring_back();
  }
  void exchange(const at::Tensor& mine, at::Tensor theirs, int partner) override {
    Crossed other = Crossed::for_result(std::move(theirs));
    world_->exchange(mine.cpu(), other.host(), partner);
    other.bring_back();
  }
  std::vector<at::Tensor> gather(const at::Tensor& tensor) override {
    auto all = world_->gather(tensor.cpu());
    for (auto& one : all) one = one.to(tensor.device());
    return all;
  }
  std::unique_ptr<World> split(int color) override { return by_host(world_->split(color)); }

 private:
  std::unique_ptr<World> world_;
};

}  // namespace

std::unique_ptr<World> by_host(std::unique_ptr<World> world) {
  return std::make_unique<ByHost>(std::move(world));
}

}  // namespace lehr::dist
