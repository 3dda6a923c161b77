#include "models/flops.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <unordered_set>

#include "engine/base/error.h"

namespace lehr::models {
namespace {

// What the ops of one forward did. Tensors are held, so that a storage's address stays its identity.
struct Tally {
  double flops = 0;
  int64_t bytes = 0;
  std::unordered_set<const void*> seen;
  std::vector<at::Tensor> held;

  // Counts the memory of `tensor` once, whoever looks at it.
  void note(const at::Tensor& tensor, bool counts) {
    if (!tensor.defined() || !seen.insert(tensor.storage().unsafeGetStorageImpl()).second) return;
    held.push_back(tensor);
    if (counts) bytes += static_cast<int64_t>(tensor.storage().nbytes());
  }
};

thread_local Tally* tally = nullptr;

double numel(const c10::IValue& value) { return static_cast<double>(value.toTensor().numel()); }
int64_t size(const c10::IValue& value, int64_t d) { return value.toTensor().size(d); }

// Two per multiply and add; `out` is the op's first result.
double flops_of(const std::string& op, c10::ArrayRef<const c10::IValue> in, const c10::IValue& out) {
  if (op == "aten::convolution") {  // input, weight [out, in / groups, k, k]
    return 2 * numel(out) * numel(in[1]) / static_cast<double>(size(in[1], 0));
  }
  if (op == "aten::mm" || op == "aten::bmm") {  // [.., n, k] x [.., k, m]
    return 2 * numel(out) * static_cast<double>(size(in[0], in[0].toTensor().dim() - 1));
  }
  if (op == "aten::addmm" || op == "aten::baddbmm") {
    return 2 * numel(out) * static_cast<double>(size(in[1], in[1].toTensor().dim() - 1));
  }
  if (op == "aten::scaled_dot_product_attention") {  // q [.., T, D], k [.., S, D]: QK' and PV
    return 4 * numel(in[0]) * static_cast<double>(size(in[1], in[1].toTensor().dim() - 2));
  }
  return 0;
}

void on_end(const at::RecordFunction& fn, at::ObserverContext*) {
  if (!tally) return;
  const auto outputs = fn.outputs();
  if (outputs.empty() || !outputs[0].isTensor()) return;
  tally->flops += flops_of(fn.name(), fn.inputs(), outputs[0]);
  for (const auto& output : outputs)
    if (output.isTensor()) tally->note(output.toTensor(), true);
}

// Watches this thread's ops while it lives.
class Watch {
 public:
  explicit Watch(Tally& mine) {
    tally = &mine;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(
            [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> { return nullptr; },
            on_end)
            .needsInputs(true)
            .needsOutputs(true)
            .scopes({at::RecordScope::FUNCTION}));
  }
  ~Watch() {
    at::removeCallback(handle_);
    tally = nullptr;
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  at::CallbackHandle handle_{};
};

Tally forward(Model& model, const ModelContext& c, int64_t batch) {
  const at::Tensor x = c.channels > 0 ? at::empty({batch, c.channels, c.height, c.width}, c.options,
                                                  at::MemoryFormat::ChannelsLast)
                                      : at::empty({batch, c.features}, c.options);
  Tally mine;
  mine.note(x, false);
  for (const auto& [name, tensor] : model.parameters()) mine.note(tensor, false);
  for (const auto& [name, tensor] : model.buffers()) mine.note(tensor, false);
  Watch watch(mine);
  model.forward(x);
  return mine;
}

int64_t bytes_of(const NamedTensors& tensors) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

}  // namespace

DryRun dry_run(Model& model, const ModelContext& context) {
  if (!context.options.device().is_meta())
    throw Error(Code::kInternal, "a dry run wants a model on the meta device");
  DryRun result;
  for (const auto& [name, tensor] : model.parameters()) result.parameters += tensor.numel();
  result.parameter_bytes = bytes_of(model.parameters());
  result.buffer_bytes = bytes_of(model.buffers());

  const bool was_training = model.is_training();
  model.train();
  // the difference of two batches leaves out what does not grow with the batch
  const Tally small = forward(model, context, 2), large = forward(model, context, 4);
  model.train(was_training);
  result.flops_per_sample_forward = (large.flops - small.flops) / 2;
  result.activation_bytes_per_sample = (large.bytes - small.bytes) / 2;
  return result;
}

}  // namespace lehr::models
