#include "models/recompute.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/model.h"
#include "models/ops.h"

namespace lehr::models {
namespace {

using Part = std::function<Tensors(const Tensors&)>;

// What the first run depended on beside its inputs, to be put back for the second.
struct Surroundings {
  DropoutKey key;
  std::vector<int64_t> samples;
  bool has_key = false;
  Kernels kernels;
  at::DeviceType device = at::kCPU;  // where it computes
  bool autocast = false;
  at::ScalarType dtype{};

  static Surroundings now(at::DeviceType device) {
    Surroundings s;
    s.device = device;
    if (const DropoutKey* key = dropout_key(); key && key->samples) {
      s.has_key = true, s.key = *key, s.samples = *key->samples;
    }
    s.kernels = kernels_in_use();
    s.autocast = at::autocast::is_autocast_enabled(device);
    s.dtype = at::autocast::get_autocast_dtype(device);
    return s;
  }
};

class Restored {
 public:
  explicit Restored(const Surroundings& s)
      : kernels_(s.kernels),
        key_(s.key),
        before_(dropout_key()),
        now_(Surroundings::now(s.device)) {
    key_.samples = &s.samples;
    if (s.has_key) set_dropout_key(&key_);
    set(s);
  }
  ~Restored() {
    set_dropout_key(before_);
    at::autocast::clear_cache();
    set(now_);
  }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  static void set(const Surroundings& s) {
    at::autocast::set_autocast_enabled(s.device, s.autocast);
    at::autocast::set_autocast_dtype(s.device, s.dtype);
  }
  KernelScope kernels_;
  DropoutKey key_;
  const DropoutKey* before_;
  Surroundings now_;
};

struct Kept : torch::CustomClassHolder {
  Kept(Part p, Surroundings a) : part(std::move(p)), around(std::move(a)) {}
  Part part;
  Surroundings around;
};

struct Recompute : torch::autograd::Function<Recompute> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                c10::intrusive_ptr<Kept> kept,
                                                at::TensorList inputs) {
    at::NoGradGuard no_grad;
    context->save_for_backward(inputs.vec());
    Tensors outputs = kept->part(inputs.vec());
    context->saved_data["kept"] = c10::IValue::make_capsule(std::move(kept));
    return outputs;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto kept = context->saved_data["kept"].toCapsule();
    const Kept& what = static_cast<const Kept&>(*kept);
    Tensors inputs;
    for (const auto& saved : context->get_saved_variables())
      inputs.push_back(saved.detach().requires_grad_(saved.requires_grad()));
    Tensors outputs, reached, arriving;
    {
      at::AutoGradMode grad(true);
      const Restored restored(what.around);
      outputs = what.part(inputs);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!gradients[i].defined() || !outputs[i].requires_grad()) continue;
      reached.push_back(outputs[i]);
      arriving.push_back(gradients[i]);
    }
    // parameters that `part` reads collect their gradients here
    torch::autograd::backward(reached, arriving);
    torch::autograd::variable_list result{at::Tensor()};
    for (const auto& input : inputs)
      result.push_back(input.requires_grad() ? input.grad() : at::Tensor());
    return result;
  }
};

}  // namespace

Tensors recomputed(bool keep, const Tensors& inputs, const Part& part) {
  if (keep || !at::GradMode::is_enabled()) return part(inputs);
  // autograd takes no undefined input: they are left out, and put back for `part`
  Tensors defined;
  std::vector<bool> is_defined;
  for (const auto& input : inputs) {
    is_defined.push_back(input.defined());
    if (input.defined()) defined.push_back(input);
  }
  const Part whole = [part, is_defined](const Tensors& given) {
    Tensors all;
    size_t next = 0;
    for (bool here : is_defined) all.push_back(here ? given[next++] : at::Tensor());
    return part(all);
  };
  // as a TensorList: autograd does not look into a std::vector
  const auto around = Surroundings::now(defined.at(0).device().type());
  return Recompute::apply(c10::make_intrusive<Kept>(whole, around), at::TensorList(defined));
}

Section RecomputeFields::section() {
  Declare<RecomputeFields> d("activation_checkpoint",
                             "Activations that are computed again instead of kept.");
  d.field("mode", &RecomputeFields::mode,
          "Which parts of a language model run again in the backward: full (each layer: least "
          "memory, a third more work), selective (each feed-forward half, which holds most of the "
          "memory), none.")
      .choices({"none", "full", "selective"})
      .synonyms({"activation_checkpoint.enabled", "training.gradient_checkpointing",
                 "training.enable_activation_checkpointing"});
  return d.section();
}

}  // namespace lehr::models
