#include "engine/step/parts.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/parallel.h"

namespace lehr::step {
namespace {

constexpr int64_t kMostParameters = 4 << 20;  // float32: 16 MB

}  // namespace

Batch rows_of(const Batch& batch, int64_t begin, int64_t end) {
  Batch part;
  part.inputs = batch.inputs.slice(0, begin, end);
  part.targets = batch.targets.slice(0, begin, end);
  if (batch.segments.defined()) part.segments = batch.segments.slice(0, begin, end);
  part.samples.assign(batch.samples.begin() + begin, batch.samples.begin() + end);
  part.epoch = batch.epoch;
  return part;
}

int64_t parts_of(const Batch& batch, const NamedTensors& parameters) {
  int64_t numbers = 0;
  for (const auto& p : parameters) numbers += p.tensor.numel();
  if (numbers > kMostParameters || !batch.inputs.is_cpu()) return 1;
  return std::min<int64_t>(at::get_num_threads(), batch.size());
}

at::Tensor backward_in_parts(const Batch& batch, int64_t parts, const NamedTensors& parameters,
                             const at::Tensor& seed,
                             const std::function<at::Tensor(const Batch&)>& loss) {
  std::vector<at::Tensor> inputs;
  for (const auto& p : parameters) inputs.push_back(p.tensor);
  std::vector<std::vector<at::Tensor>> gradients(static_cast<size_t>(parts));
  std::vector<at::Tensor> sums(static_cast<size_t>(parts));
  kernels::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const auto slot = static_cast<size_t>(i);
      const at::Tensor sum =
          loss(rows_of(batch, batch.size() * i / parts, batch.size() * (i + 1) / parts));
      gradients[slot] = torch::autograd::grad({sum}, inputs, {seed}, /*retain_graph=*/false,
                                              /*create_graph=*/false, /*allow_unused=*/true);
      sums[slot] = sum.detach();
    }
  });
  c10::NoGradGuard no_grad;
  at::Tensor total = sums[0];
  for (size_t i = 1; i < sums.size(); ++i) total = total + sums[i];
  for (size_t p = 0; p < inputs.size(); ++p) {
    at::Tensor& gradient = inputs[p].mutable_grad();
    for (auto& part : gradients) {
      if (!part[p].defined()) continue;
      if (gradient.defined())
        gradient.add_(part[p]);
      else
        gradient = part[p];
    }
  }
  return total;
}

}  // namespace lehr::step
