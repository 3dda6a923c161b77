#include "engine/step/culprit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cmath>

#include "engine/step/step.h"

namespace lehr::step {
namespace {

constexpr size_t kNamed = 8;

// [B], true where every number of the sample is finite
at::Tensor finite_samples(const at::Tensor& values) {
  return at::isfinite(values).reshape({values.size(0), -1}).all(1);
}

bool all_finite(const at::Tensor& values) { return at::isfinite(values).all().item<bool>(); }

// "`a`, `b`", of so many as a line takes
std::string listed(const StringList& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kNamed); ++i)
    text += (i > 0 ? ", `" : "`") + names[i] + "`";
  return text;
}

// "sample 17 of epoch 0 (micro-batch 1, position 3)"
std::string place(const std::vector<Batch>& micro, size_t m, int64_t i) {
  const Batch& batch = micro[m];
  // a caller may leave the ids out; the position is then all there is
  std::string id =
      i < batch.size()
          ? fmt::format("sample {} of epoch {}", batch.samples[static_cast<size_t>(i)], batch.epoch)
          : "a sample";
  return fmt::format("{} (micro-batch {}, position {})", id, m, i);
}

class Naming {
 public:
  explicit Naming(const std::vector<Batch>& micro) : micro_(micro) {}
  void add(size_t micro, const at::Tensor& is_fine) {
    at::Tensor fine = is_fine.to(at::kCPU).contiguous();
    const bool* ok = fine.const_data_ptr<bool>();
    for (int64_t i = 0; i < fine.numel(); ++i) {
      if (!ok[i] && ++count_ <= kNamed) names_.push_back(place(micro_, micro, i));
    }
  }
  bool found() const { return count_ > 0; }
  std::string say(const std::string& what) const {
    std::string more = count_ > kNamed ? fmt::format(" and {} more", count_ - kNamed) : "";
    return fmt::format("{} is not finite for {}{}", what, fmt::join(names_, ", "), more);
  }

 private:
  const std::vector<Batch>& micro_;
  StringList names_;
  size_t count_ = 0;
};

// The largest loss seen, and whose it is.
class Worst {
 public:
  explicit Worst(const std::vector<Batch>& micro) : micro_(micro) {}
  void add(size_t micro, const at::Tensor& losses) {
    auto [loss, position] = losses.max(0);
    if (loss.item<double>() <= loss_) return;
    loss_ = loss.item<double>();
    place_ = place(micro_, micro, position.item<int64_t>());
  }
  std::string say() const { return fmt::format("is {:.3g} for {}", loss_, place_); }

 private:
  const std::vector<Batch>& micro_;
  double loss_ = -INFINITY;
  std::string place_;
};

// Modes of a tree of modules, put back at the end.
class Modes {
 public:
  explicit Modes(models::Module& root) { note(root); }
  ~Modes() {
    // parents first, because train() sets children too
    for (auto& [module, training] : modes_) module->train(training);
  }

 private:
  void note(models::Module& module) {
    modes_.emplace_back(&module, module.is_training());
    for (const auto& [name, child] : module.children()) note(*child);
  }
  std::vector<std::pair<models::Module*, bool>> modes_;
};

// of a language model: every logit, which these rare cases can afford
at::Tensor outputs_of(models::Model& model, const Batch& batch) {
  auto* language = dynamic_cast<models::LanguageModel*>(&model);
  if (!language) return model.forward(batch.inputs);
  return language->logits({batch.inputs, batch.segments, nullptr});
}

at::Tensor sample_losses(const Suspects& s, const Batch& batch) {
  models::DropoutKey key = s.dropout;
  key.samples = &batch.samples;
  models::set_dropout_key(&key);
  at::Tensor outputs;
  {
    Autocast autocast(batch.inputs.device().type(), s.precision);
    outputs = outputs_of(s.model, batch);
  }
  models::set_dropout_key(nullptr);
  return s.loss.each(outputs, batch.targets);
}

}  // namespace

std::string first_non_finite(const FieldSource& fields, models::Model& model, const Batch& batch) {
  c10::NoGradGuard no_grad;
  const auto first = [&](const char* what, const at::Tensor& is_fine) -> std::string {
    const at::Tensor bad = is_fine.logical_not().nonzero();
    if (bad.numel() == 0) return "";
    return fmt::format("{} is not finite for sample {}", what,
                       batch.samples.at(static_cast<size_t>(bad[0].item<int64_t>())));
  };
  std::string found = first("the input", finite_samples(batch.inputs));
  if (found.empty()) found = first("the target", finite_samples(batch.targets));
  if (!found.empty()) return found;
  const at::Tensor outputs = outputs_of(model, batch);
  found = first("the output", finite_samples(outputs));
  if (!found.empty()) return found;
  const auto loss = make_loss(fields.get<LossFields>());
  return first("the loss", at::isfinite(loss->each(outputs, batch.targets)));
}

Culprit find_culprit(const Suspects& s) {
  c10::NoGradGuard no_grad;
  for (const auto& [name, tensor] : s.model.parameters())
    if (!all_finite(tensor))
      return {fmt::format("parameter `{}` was not finite before this step", name), true};

  Naming inputs(s.micro), targets(s.micro);
  for (size_t m = 0; m < s.micro.size(); ++m) {
    inputs.add(m, finite_samples(s.micro[m].inputs));
    targets.add(m, finite_samples(s.micro[m].targets));
  }
  if (inputs.found()) return {inputs.say("the input"), true};
  if (targets.found()) return {targets.say("the target"), true};

  Worst worst(s.micro);
  {
    Modes modes(s.model);
    s.model.train(false);
    Naming losses(s.micro);
    for (size_t m = 0; m < s.micro.size(); ++m) {
      at::Tensor each = sample_losses(s, s.micro[m]);
      losses.add(m, at::isfinite(each));
      worst.add(m, each);
    }
    if (losses.found()) return {losses.say("the loss"), true};
  }
  for (const auto& batch : s.micro)
    if (!all_finite(sample_losses(s, batch)))
      return {
          "the loss is finite in evaluation mode but not in training, so it comes from batch "
          "statistics or dropout; the largest " +
              worst.say(),
          true};

  if (!s.statistics.empty())
    return {fmt::format("every loss is finite, but {} would no longer be; the largest loss in "
                        "evaluation mode {}",
                        listed(s.statistics), worst.say()),
            true};

  StringList names;
  for (const auto& [name, tensor] : s.parameters)
    if (tensor.grad().defined() && !all_finite(tensor.grad())) names.push_back(name);
  return {fmt::format("the loss of every sample is finite, but the gradient of {} is not",
                      names.empty() ? "the whole model" : listed(names)),
          false};
}

}  // namespace lehr::step
