#include "engine/step/micro_graph.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "engine/base/error.h"

namespace lehr::step {
namespace {

bool same_shape(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() == b.defined() &&
         (!a.defined() || (a.sizes() == b.sizes() && a.strides() == b.strides() &&
                           a.scalar_type() == b.scalar_type()));
}

at::Tensor memory_for(const at::Tensor& t) { return t.defined() ? at::empty_like(t) : t; }

void copy_in(at::Tensor into, const at::Tensor& from) {
  if (from.defined()) into.copy_(from, /*non_blocking=*/true);
}

}  // namespace

MicroGraph::MicroGraph(DeviceRuntime& device, NamedTensors parameters, NamedTensors buffers)
    : device_(device), parameters_(std::move(parameters)), buffers_(std::move(buffers)) {}

MicroGraph::~MicroGraph() = default;

bool MicroGraph::fits(const Batch& batch) const {
  return !work_ ||
         (same_shape(inputs_.inputs, batch.inputs) && same_shape(inputs_.targets, batch.targets) &&
          same_shape(inputs_.segments, batch.segments));
}

at::Tensor MicroGraph::run(const Batch& batch,
                           const std::function<at::Tensor(const Batch&)>& forward_backward) {
  if (!work_) record(batch, forward_backward);
  {
    const c10::NoGradGuard no_grad;
    copy_in(inputs_.inputs, batch.inputs);
    copy_in(inputs_.targets, batch.targets);
    copy_in(inputs_.segments, batch.segments);
  }
  work_->replay();
  for (size_t i = 0; i < parameters_.size(); ++i)
    parameters_[i].tensor.mutable_grad() = gradients_[i];
  return sum_.clone();
}

void MicroGraph::record(const Batch& batch,
                        const std::function<at::Tensor(const Batch&)>& forward_backward) {
  inputs_.inputs = memory_for(batch.inputs);
  inputs_.targets = memory_for(batch.targets);
  inputs_.segments = memory_for(batch.segments);
  std::vector<at::Tensor> statistics;
  {
    const c10::NoGradGuard no_grad;
    copy_in(inputs_.inputs, batch.inputs);
    copy_in(inputs_.targets, batch.targets);
    copy_in(inputs_.segments, batch.segments);
    for (const auto& buffer : buffers_) statistics.push_back(buffer.tensor.clone());
  }
  inputs_.samples = batch.samples;
  inputs_.epoch = batch.epoch;
  const auto clear = [this] {
    for (auto& p : parameters_) p.tensor.mutable_grad().reset();
  };
  try {
    work_ = device_.record([this, clear, forward_backward](bool for_good) {
      clear();  // a backward then moves its gradients in, without an addition
      sum_ = forward_backward(inputs_);
      if (!for_good) return;
      for (const auto& p : parameters_) gradients_.push_back(p.tensor.grad());
    });
  } catch (const c10::Error& e) {
    throw Error(Code::kRecipe,
                std::string("this step cannot be recorded: ") + e.what_without_backtrace(),
                "training.cuda_graph", "set it to false");
  }
  clear();
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < buffers_.size(); ++i) buffers_[i].tensor.copy_(statistics[i]);
}

}  // namespace lehr::step
