#include "models/flops.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <unordered_set>

#include "engine/base/error.h"

namespace lehr::models {
namespace {

// What the ops of one forward did. Tensors are held, so that a storage's address stays its
// identity.
struct Tally {
  double flops = 0;
  int64_t bytes = 0;
  int64_t least_norm_values = 0;
  std::vector<Product> products;
  std::unordered_set<const void*> seen;
  std::vector<at::Tensor> held;

  void note(const Product& product) {
    for (auto& known : products)
      if (known.same_as(product)) {
        ++known.times;
        return;
      }
    products.push_back(product);
  }

  // Counts the memory of `tensor` once, whoever looks at it.
  void note(const at::Tensor& tensor, bool counts) {
    if (!tensor.defined() || !seen.insert(tensor.storage().unsafeGetStorageImpl()).second) return;
    held.push_back(tensor);
    if (counts) bytes += static_cast<int64_t>(tensor.storage().nbytes());
  }
};

thread_local Tally* tally = nullptr;  // while a Watch lives

// Work of one op: known from its inputs, but for the size of its output.
struct Work : at::ObserverContext {
  double per_output_number = 0, fixed = 0;
};

// Two for a multiply and an add. Inputs are valid only before the op has run.
std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& fn) {
  auto work = std::make_unique<Work>();
  const std::string op = fn.name();
  const auto in = fn.inputs();
  auto tensor = [&](size_t i) { return in[i].toTensor(); };
  // inputs [first, last) are the factors
  auto factors = [&](size_t first, size_t last) {
    Product product{.op = op};
    for (size_t i = first; i < last; ++i) {
      product.sizes.push_back(tensor(i).sizes().vec());
      product.needs_gradient.push_back(tensor(i).requires_grad());
    }
    return product;
  };
  if (op == "aten::convolution") {  // input, weight [out, in / groups, k, k]
    work->per_output_number = 2 * static_cast<double>(tensor(1).numel() / tensor(1).size(0));
    Product product = factors(0, 2);
    product.stride = in[3].toIntVector();
    product.padding = in[4].toIntVector();
    tally->note(product);
  } else if (op == "aten::mm" || op == "aten::bmm") {  // [.., n, k] x [.., k, m]
    work->per_output_number = 2 * static_cast<double>(tensor(0).size(-1));
    tally->note(factors(0, 2));
  } else if (op == "aten::addmm" || op == "aten::baddbmm") {
    work->per_output_number = 2 * static_cast<double>(tensor(1).size(-1));
    tally->note(factors(1, 3));
  } else if (op ==
             "aten::scaled_dot_product_attention") {  // q [.., T, D], k [.., S, D]: QK' and PV
    Product product = factors(0, 3);
    product.causal = in[5].toBool();
    work->fixed = (product.causal ? 2 : 4) * static_cast<double>(tensor(0).numel()) *
                  static_cast<double>(tensor(1).size(-2));
    tally->note(product);
  } else if (op == "aten::batch_norm") {
    const at::Tensor x = tensor(0);
    const int64_t values = x.numel() / (x.size(0) * x.size(1));
    int64_t& least = tally->least_norm_values;
    least = least == 0 ? values : std::min(least, values);
  }
  return work;
}

void on_end(const at::RecordFunction& fn, at::ObserverContext* context) {
  if (!tally) return;
  const auto& work = *static_cast<Work*>(context);
  tally->flops += work.fixed;
  const auto outputs = fn.outputs();
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].isTensor()) continue;
    const at::Tensor output = outputs[i].toTensor();
    if (i == 0) tally->flops += work.per_output_number * static_cast<double>(output.numel());
    tally->note(output, true);
  }
}

// Watches this thread's ops while it lives.
class Watch {
 public:
  explicit Watch(Tally& mine) {
    tally = &mine;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(on_start, on_end)
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
  const at::Tensor x = c.vocabulary > 0 ? at::empty({batch, c.context}, c.options.dtype(at::kLong))
                       : c.channels > 0 ? at::empty({batch, c.channels, c.height, c.width},
                                                    c.options, at::MemoryFormat::ChannelsLast)
                                        : at::empty({batch, c.features}, c.options);
  if (!c.options.device().is_meta())
    throw Error(Code::kInternal, "a dry run wants a model on the meta device");
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

bool Product::same_as(const Product& other) const {
  return op == other.op && sizes == other.sizes && needs_gradient == other.needs_gradient &&
         stride == other.stride && padding == other.padding && causal == other.causal;
}

std::vector<Product> products(Model& model, const ModelContext& context, int64_t batch) {
  const bool was_training = model.is_training();
  model.train();
  Tally tally = forward(model, context, batch);
  model.train(was_training);
  return std::move(tally.products);
}

DryRun dry_run(Model& model, const ModelContext& context) {
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
  result.least_norm_values = small.least_norm_values;
  return result;
}

}  // namespace lehr::models
