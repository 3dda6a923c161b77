#include "engine/step/loss.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <mutex>

#include "engine/base/error.h"
#include "engine/step/precision.h"
#include "engine/step/step.h"
#include "kernels/cross_entropy/cross_entropy_op.h"
#include "models/ops.h"
#include "models/products.h"

namespace lehr::step {
namespace {

constexpr int64_t kIgnored = -100;  // a target that does not count

// a wrong shape would broadcast in silence and train something else
void require(bool holds, const char* expected, const at::Tensor& outputs,
             const at::Tensor& targets) {
  if (holds) return;
  throw Error(Code::kInternal,
              fmt::format("the loss expects {}; the outputs are {} and the targets {}", expected,
                          fmt::join(outputs.sizes(), "x"), fmt::join(targets.sizes(), "x")));
}

// A few numbers of the recipe; they cross to a device once.
class Constant {
 public:
  explicit Constant(const at::Tensor& values) : host_(values) {}
  at::Tensor on(at::Device device) const {  // undefined where there are none
    if (!host_.defined() || device.is_cpu()) return host_;
    const std::lock_guard lock(mutex_);
    if (!there_.defined() || there_.device() != device) there_ = host_.to(device);
    return there_;
  }

 private:
  at::Tensor host_;
  mutable std::mutex mutex_;
  mutable at::Tensor there_;
};

class CrossEntropy : public Loss {
 public:
  explicit CrossEntropy(const LossFields& fields)
      : weights_(fields.class_weights),
        label_smoothing_(fields.label_smoothing),
        z_loss_(fields.z_loss),
        constant_(weights_.empty() ? at::Tensor()
                                   : at::tensor(weights_, at::kDouble).to(at::kFloat)) {
    double sum = 0;
    for (double w : weights_) {
      if (!(w >= 0) || !std::isfinite(w))
        throw Error(Code::kRecipe, fmt::format("a class weight is {}", w), "loss.class_weights",
                    "write one number of at least 0 for each class");
      sum += w;
    }
    if (!weights_.empty() && sum == 0)
      throw Error(Code::kRecipe, "all class weights are 0", "loss.class_weights",
                  "write at least one that is above 0");
  }

  double weight(const at::Tensor& targets) const override {
    if (targets.dim() == 2)  // tokens
      return static_cast<double>(targets.ne(kIgnored).sum().item<int64_t>());
    if (weights_.empty()) return static_cast<double>(targets.numel());
    return constant_.on(targets.device()).index_select(0, targets).sum(at::kDouble).item<double>();
  }

  at::Tensor scores(const at::Tensor& outputs) const override {
    return at::softmax(outputs, 1, at::kFloat);
  }

  at::Tensor token_sum(const at::Tensor& hidden, const at::Tensor& head, int64_t vocabulary,
                       const at::Tensor& targets) const override {
    if (!weights_.empty())
      throw Error(Code::kRecipe, "tokens have no class weights", "loss.class_weights", "remove it");
    if (models::kernels_in_use() != models::Kernels::kAten) {
      kernels::CrossEntropyOptions options;
      options.label_smoothing = label_smoothing_;
      options.z_loss = z_loss_;
      options.vocabulary = vocabulary;
      // the hidden state may come from a norm, in float32; the product is of the precision of any
      // other
      const auto type = models::product_type(head);
      if (models::products_in_float(head))
        return kernels::linear_cross_entropy_sum(hidden.to(type).to(at::kFloat),
                                                 head.to(type).to(at::kFloat), targets, options);
      return kernels::linear_cross_entropy_sum(hidden.to(type), head, targets, options);
    }
    const at::Tensor rows = vocabulary == head.size(0) ? head : head.slice(0, 0, vocabulary);
    const at::Tensor logits = models::linear(hidden.flatten(0, 1), rows).to(at::kFloat);  // [N, V]
    return apply(logits, targets.flatten(), at::Reduction::Sum);
  }

  int64_t output_count(int64_t classes, int64_t) const override {
    if (classes < 2)
      throw Error(Code::kRecipe,
                  classes == 0 ? "cross_entropy needs classes, but the target holds numbers"
                               : "cross_entropy needs at least two classes, the data has one",
                  "loss.name", "use mse, mae or huber for numbers");
    if (!weights_.empty() && static_cast<int64_t>(weights_.size()) != classes)
      throw Error(Code::kRecipe,
                  fmt::format("{} class weights for {} classes", weights_.size(), classes),
                  "loss.class_weights", "write one for each class, in the order of the classes");
    return classes;
  }

 protected:
  at::Tensor apply(const at::Tensor& outputs, const at::Tensor& targets,
                   int64_t reduction) const override {
    if (outputs.dim() == 3) {  // tokens
      at::Tensor loss = apply(outputs.flatten(0, 1), targets.flatten(), reduction);
      return reduction == at::Reduction::None ? loss.view_as(targets) : loss;
    }
    require(outputs.dim() == 2 && targets.dim() == 1 && outputs.size(0) == targets.size(0) &&
                (weights_.empty() || static_cast<int64_t>(weights_.size()) == outputs.size(1)),
            "outputs [B, C], targets [B] and as many class weights as classes", outputs, targets);
    at::Tensor loss = at::cross_entropy_loss(outputs, targets, constant_.on(outputs.device()),
                                             reduction, kIgnored, label_smoothing_);
    if (z_loss_ > 0) {
      at::Tensor z = at::logsumexp(outputs, 1).square().masked_fill(targets == kIgnored, 0);
      loss = loss + z_loss_ * (reduction == at::Reduction::Sum ? z.sum() : z);
    }
    return loss;
  }

 private:
  FloatList weights_;
  double label_smoothing_, z_loss_;
  Constant constant_;
};

class BinaryCrossEntropy : public Loss {
 public:
  explicit BinaryCrossEntropy(const LossFields& fields)
      : pos_weight_(fields.pos_weight == 1 ? at::Tensor()
                                           : at::tensor({fields.pos_weight}, at::kFloat)) {}

  at::Tensor scores(const at::Tensor& outputs) const override {
    at::Tensor logit = outputs.to(at::kFloat);  // [B, 1]
    return at::sigmoid(at::cat({-logit, logit}, 1));
  }

  int64_t output_count(int64_t classes, int64_t) const override {
    if (classes != 2)
      throw Error(
          Code::kRecipe,
          classes == 0
              ? "binary_cross_entropy needs two classes, but the target holds numbers"
              : fmt::format("binary_cross_entropy needs two classes, the data has {}", classes),
          "loss.name", "use cross_entropy for classes; mse, mae or huber for numbers");
    return 1;
  }

 protected:
  at::Tensor apply(const at::Tensor& outputs, const at::Tensor& targets,
                   int64_t reduction) const override {
    require(outputs.dim() == 2 && outputs.size(1) == 1 && targets.dim() == 1 &&
                outputs.size(0) == targets.size(0),
            "outputs [B, 1] and targets [B] of 0 and 1", outputs, targets);
    return at::binary_cross_entropy_with_logits(outputs.squeeze(1), targets.to(at::kFloat), {},
                                                pos_weight_.on(outputs.device()), reduction);
  }

 private:
  Constant pos_weight_;
};

class Regression : public Loss {
 public:
  using Function = at::Tensor (*)(const at::Tensor& outputs, const at::Tensor& targets,
                                  int64_t reduction, double delta);
  Regression(std::string name, Function function, double delta)
      : name_(std::move(name)), function_(function), delta_(delta) {}

  int64_t output_count(int64_t classes, int64_t values) const override {
    if (classes > 0 || values < 1)
      throw Error(Code::kRecipe,
                  fmt::format("{} needs numbers, but the target holds classes", name_), "loss.name",
                  "use cross_entropy, or binary_cross_entropy for two classes");
    return values;
  }

 protected:
  at::Tensor apply(const at::Tensor& outputs, const at::Tensor& targets,
                   int64_t reduction) const override {
    require(outputs.sizes() == targets.sizes(), "outputs and targets of one shape", outputs,
            targets);
    return function_(outputs, targets.to(at::kFloat), reduction, delta_);
  }

 private:
  std::string name_;
  Function function_;
  double delta_;
};

template <Regression::Function function>
std::unique_ptr<Loss> regression(const LossFields& fields) {
  return std::make_unique<Regression>(fields.name, function, fields.delta);
}

at::Tensor mse(const at::Tensor& o, const at::Tensor& t, int64_t r, double) {
  return at::mse_loss(o, t, r);
}
at::Tensor mae(const at::Tensor& o, const at::Tensor& t, int64_t r, double) {
  return at::l1_loss(o, t, r);
}
at::Tensor huber(const at::Tensor& o, const at::Tensor& t, int64_t r, double delta) {
  return at::huber_loss(o, t, r, delta);
}

template <class T>
std::unique_ptr<Loss> make(const LossFields& fields) {
  return std::make_unique<T>(fields);
}

struct Entry {
  const char* name;
  std::unique_ptr<Loss> (*make)(const LossFields& fields);
};
constexpr Entry kLosses[] = {{"cross_entropy", make<CrossEntropy>},
                             {"binary_cross_entropy", make<BinaryCrossEntropy>},
                             {"mse", regression<mse>},
                             {"mae", regression<mae>},
                             {"huber", regression<huber>}};

}  // namespace

at::Tensor Loss::sum(const at::Tensor& outputs, const at::Tensor& targets) const {
  return apply(outputs.to(at::kFloat), targets, at::Reduction::Sum);
}

at::Tensor Loss::each(const at::Tensor& outputs, const at::Tensor& targets) const {
  at::Tensor loss = apply(outputs.to(at::kFloat), targets, at::Reduction::None);
  return loss.dim() > 1 ? loss.flatten(1).mean(1) : loss;
}

double Loss::weight(const at::Tensor& targets) const {
  return static_cast<double>(targets.numel());
}

at::Tensor Loss::token_sum(const at::Tensor&, const at::Tensor&, int64_t, const at::Tensor&) const {
  throw Error(Code::kRecipe, "a language model is trained by cross_entropy alone", "loss.name",
              "write cross_entropy");
}

at::Tensor Loss::scores(const at::Tensor& outputs) const { return outputs.to(at::kFloat); }

std::unique_ptr<Loss> make_loss(const LossFields& fields) {
  StringList names;
  for (const auto& entry : kLosses) {
    if (fields.name == entry.name) return entry.make(fields);
    names.push_back(entry.name);
  }
  throw Error(Code::kRecipe, fmt::format("there is no loss `{}`", fields.name), "loss.name",
              fmt::format("did you mean `{}`?", nearest(fields.name, names)));
}

int64_t output_count(const FieldSource& fields, int64_t classes, int64_t values) {
  return make_loss(fields.get<LossFields>())->output_count(classes, values);
}

at::Tensor to_scores(const FieldSource& fields, const at::Tensor& outputs) {
  return make_loss(fields.get<LossFields>())->scores(outputs);
}

at::Tensor forward_sum(models::Model& model, const Loss& loss, const Batch& batch,
                       std::optional<at::ScalarType> precision, at::Tensor* outputs) {
  at::Tensor hidden;
  auto* language = dynamic_cast<models::LanguageModel*>(&model);
  {
    Autocast autocast(batch.inputs.device().type(), precision);
    hidden = language ? language->hidden({batch.inputs, batch.segments, nullptr})
                      : model.forward(batch.inputs);
    if (language)
      return loss.token_sum(hidden, language->head(), language->vocabulary(), batch.targets);
  }
  if (outputs) *outputs = hidden;
  return loss.sum(hidden, batch.targets);
}

Evaluated evaluate_batch(const FieldSource& fields, models::Model& model, const Batch& batch) {
  const models::KernelScope kernels(
      models::kernels_of(fields.get<TrainingFields>().kernels, batch.inputs.device()));
  auto wanted = fields.get<LossFields>();
  // a language model is measured in nats per token: perplexity and bits per byte follow from it
  if (dynamic_cast<models::LanguageModel*>(&model)) wanted.label_smoothing = wanted.z_loss = 0;
  auto loss = make_loss(wanted);
  Evaluated result;
  result.sum = forward_sum(model, *loss, batch, std::nullopt, &result.outputs).item<double>();
  result.weight = loss->weight(batch.targets_to_count());
  return result;
}

}  // namespace lehr::step
