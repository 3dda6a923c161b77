#include "engine/step/optimizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <optional>

#include "engine/base/error.h"

namespace lehr::step {
namespace {

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerFields& fields, const std::vector<Group>& groups)
      : Optimizer(groups, {"exp_avg", "exp_avg_sq"}), betas_(fields.betas), eps_(fields.eps) {
    if (betas_.size() != 2 || !(betas_[0] >= 0 && betas_[0] < 1 && betas_[1] >= 0 && betas_[1] < 1))
      throw Error(Code::kRecipe, "betas are not two numbers in [0, 1)", "optimizer.betas",
                  "write for example [0.9, 0.999]");
    count_ = at::zeros({}, groups.front().parameters.front().tensor.options().dtype(at::kFloat));
  }

 protected:
  void apply(Lists& lists, double lr, double weight_decay, const at::Tensor& divisor) override {
    // all parameters share one count; the op only reads it
    count_.fill_(static_cast<double>(updates_ + 1));
    counts_.assign(lists.parameters.size(), count_);
    at::_fused_adamw_(lists.parameters, lists.gradients, lists.state[0], lists.state[1], {},
                      counts_, lr, betas_[0], betas_[1], weight_decay, eps_, /*amsgrad=*/false,
                      /*maximize=*/false, optional(divisor));
  }

 private:
  FloatList betas_;
  double eps_;
  at::Tensor count_;
  Tensors counts_;
};

class Sgd : public Optimizer {
 public:
  Sgd(const OptimizerFields& fields, const std::vector<Group>& groups)
      : Optimizer(groups, fields.momentum > 0 ? std::vector<std::string>{"momentum"}
                                              : std::vector<std::string>{}),
        momentum_(fields.momentum),
        nesterov_(fields.nesterov) {
    if (nesterov_ && momentum_ == 0)
      throw Error(Code::kRecipe, "nesterov without momentum", "optimizer.nesterov",
                  "set optimizer.momentum above 0, or leave nesterov out");
  }

 protected:
  void apply(Lists& lists, double lr, double weight_decay, const at::Tensor& divisor) override {
    // momentum starts at zero, so the first step needs no case of its own
    at::_fused_sgd_(lists.parameters, lists.gradients,
                    lists.state.empty() ? at::TensorList() : at::TensorList(lists.state[0]),
                    weight_decay, momentum_, lr, /*dampening=*/0, nesterov_, /*maximize=*/false,
                    /*is_first_step=*/false, optional(divisor));
  }

 private:
  double momentum_;
  bool nesterov_;
};

template <class T>
std::unique_ptr<Optimizer> make(const OptimizerFields& fields, const std::vector<Group>& groups) {
  return std::make_unique<T>(fields, groups);
}

struct Entry {
  const char* name;
  std::unique_ptr<Optimizer> (*make)(const OptimizerFields&, const std::vector<Group>&);
  int (*state_tensors)(const OptimizerFields&);
};
constexpr Entry kOptimizers[] = {
    {"adamw", make<AdamW>, [](const OptimizerFields&) { return 2; }},
    {"sgd", make<Sgd>, [](const OptimizerFields& f) { return f.momentum > 0 ? 1 : 0; }}};

const Entry& find_optimizer(const std::string& name) {
  StringList names;
  for (const auto& entry : kOptimizers) {
    if (name == entry.name) return entry;
    names.push_back(entry.name);
  }
  throw Error(Code::kRecipe, fmt::format("there is no optimizer `{}`", name), "optimizer.name",
              fmt::format("did you mean `{}`?", nearest(name, names)));
}

}  // namespace

Optimizer::Optimizer(const std::vector<Group>& groups, std::vector<std::string> kinds)
    : kinds_(std::move(kinds)) {
  for (const auto& group : groups) {
    Lists lists;
    lists.state.resize(kinds_.size());
    for (const auto& p : group.parameters) {
      lists.parameters.push_back(p.tensor);
      for (auto& list : lists.state)
        list.push_back(at::zeros_like(p.tensor, p.tensor.options().requires_grad(false)));
    }
    members_.push_back({group, std::move(lists)});
  }
}

void Optimizer::update(double lr, const at::Tensor& divisor) {
  c10::NoGradGuard no_grad;
  for (auto& [group, lists] : members_) {
    lists.gradients.clear();
    for (const auto& p : lists.parameters)
      if (p.grad().defined()) lists.gradients.push_back(p.grad());
    if (lists.gradients.empty()) continue;
    if (lists.gradients.size() == lists.parameters.size()) {
      apply(lists, lr * group.lr_factor, group.weight_decay, divisor);
    } else {
      // some were not reached by this backward
      Lists reached;
      reached.state.resize(kinds_.size());
      for (size_t i = 0; i < lists.parameters.size(); ++i) {
        if (!lists.parameters[i].grad().defined()) continue;
        reached.parameters.push_back(lists.parameters[i]);
        reached.gradients.push_back(lists.parameters[i].grad());
        for (size_t k = 0; k < kinds_.size(); ++k) reached.state[k].push_back(lists.state[k][i]);
      }
      apply(reached, lr * group.lr_factor, group.weight_decay, divisor);
    }
    lists.gradients.clear();
  }
  ++updates_;
}

NamedTensors Optimizer::state() const {
  NamedTensors result;
  for (const auto& [group, lists] : members_)
    for (size_t k = 0; k < kinds_.size(); ++k)
      for (size_t i = 0; i < lists.parameters.size(); ++i)
        result.push_back({kinds_[k] + "." + group.parameters[i].name, lists.state[k][i]});
  return result;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerFields& fields,
                                          const std::vector<Group>& groups) {
  return find_optimizer(fields.name).make(fields, groups);
}

int state_tensors(const OptimizerFields& fields) {
  return find_optimizer(fields.name).state_tensors(fields);
}

}  // namespace lehr::step
