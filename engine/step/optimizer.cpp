#include "engine/step/optimizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "engine/base/error.h"
#include "kernels/adamw/adamw_op.h"

namespace lehr::step {
namespace {

// as in PyTorch's clip_grad_norm_
constexpr double kClipEps = 1e-6;

// float32, where the weights are; there may be none on a rank that shares few rows
at::TensorOptions options_of(const std::vector<Group>& groups) {
  for (const Group& group : groups)
    for (const auto& p : group.parameters) return p.tensor.options().requires_grad(false);
  return at::kFloat;
}

// A rule of ATen's fused ops: they take lists of one group each, float32 throughout, and divide
// gradients (in place) by a number on the device: loss scale and clipping, at no extra pass.
class AtenOptimizer : public Optimizer {
 protected:
  AtenOptimizer(const std::vector<Group>& groups, std::vector<std::string> kinds)
      : Optimizer(groups, std::move(kinds)) {
    divisor_ = at::zeros({}, options_of(groups));
  }

  struct Lists {
    Tensors parameters, gradients;
    std::vector<Tensors> state;
  };
  // `lists` are of equal length, never empty.
  virtual void apply(Lists& lists, double lr, double weight_decay,
                     const std::optional<at::Tensor>& divisor) = 0;

 private:
  void apply(const Update& update) final {
    double divide = update.divide;
    if (update.max_norm > 0) divide *= std::max(1.0, (update.norm + kClipEps) / update.max_norm);
    std::optional<at::Tensor> divisor;
    if (divide != 1) divisor = divisor_.fill_(divide);
    for (const Member& member : members_) {
      Lists lists;
      lists.state.resize(member.state.size());
      Tensors copies, copied;
      for (size_t i = 0; i < member.gradients.size(); ++i) {
        if (!member.gradients[i].defined()) continue;
        lists.parameters.push_back(member.group.parameters[i].tensor);
        lists.gradients.push_back(member.gradients[i].to(at::kFloat));
        for (size_t k = 0; k < lists.state.size(); ++k)
          lists.state[k].push_back(member.state[k][i]);
        if (const at::Tensor& copy = member.group.copies[i]; copy.defined()) {
          copies.push_back(copy);
          copied.push_back(lists.parameters.back());
        }
      }
      if (lists.parameters.empty()) continue;
      apply(lists, update.lr * member.group.lr_factor, member.group.weight_decay, divisor);
      if (!copies.empty()) at::_foreach_copy_(copies, copied);
    }
  }

  at::Tensor divisor_;
};

const std::vector<std::string> kAdamState{"exp_avg", "exp_avg_sq"};

class AtenAdamW : public AtenOptimizer {
 public:
  AtenAdamW(const OptimizerFields& fields, const std::vector<Group>& groups)
      : AtenOptimizer(groups, kAdamState), betas_(fields.betas), eps_(fields.eps) {
    count_ = at::zeros({}, options_of(groups));
  }

 private:
  void apply(Lists& lists, double lr, double weight_decay,
             const std::optional<at::Tensor>& divisor) override {
    // all parameters share one count; the op only reads it
    count_.fill_(static_cast<double>(updates_ + 1));
    const Tensors counts(lists.parameters.size(), count_);
    at::_fused_adamw_(lists.parameters, lists.gradients, lists.state[0], lists.state[1], {}, counts,
                      lr, betas_[0], betas_[1], weight_decay, eps_, /*amsgrad=*/false,
                      /*maximize=*/false, divisor);
  }

  FloatList betas_;
  double eps_;
  at::Tensor count_;
};

// All groups in one pass: clipping, update, copies and averages.
class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerFields& fields, const std::vector<Group>& groups)
      : Optimizer(groups, kAdamState) {
    const FloatList betas = fields.betas;
    options_.beta1 = betas[0];
    options_.beta2 = betas[1];
    options_.eps = fields.eps;
    for (const Member& member : members_) {
      kernels::AdamWGroup lists;
      for (const auto& p : member.group.parameters) lists.parameters.push_back(p.tensor);
      lists.copies = member.group.copies;
      lists.exp_avg = member.state[0];
      lists.exp_avg_sq = member.state[1];
      lists.weight_decay = member.group.weight_decay;
      lists_.push_back(std::move(lists));
    }
  }

  bool take_averages(const Tensors& averages, double decay) override {
    auto next = averages.begin();
    for (auto& lists : lists_) {
      const auto end = next + static_cast<std::ptrdiff_t>(lists.parameters.size());
      lists.averages.assign(next, end);
      next = end;
    }
    options_.ema_decay = decay;
    return true;
  }

 protected:
  void apply(const Update& update) override {
    for (size_t g = 0; g < lists_.size(); ++g) {
      auto& lists = lists_[g];
      lists.gradients.swap(members_[g].gradients);
      lists.lr = update.lr * members_[g].group.lr_factor;
      // what the kernel leaves alone has an average all the same
      for (size_t i = 0; i < lists.averages.size(); ++i)
        if (!lists.gradients[i].defined())
          lists.averages[i].lerp_(lists.parameters[i], 1 - options_.ema_decay);
    }
    options_.step = updates_ + 1;
    options_.divide = update.divide;
    options_.max_norm = update.max_norm;
    options_.norm = update.norm;
    kernels::adamw_step(lists_, options_);
    for (auto& lists : lists_) lists.gradients.clear();
  }

 private:
  std::vector<kernels::AdamWGroup> lists_;
  kernels::AdamWOptions options_;
};

// Beside ATen's op on copies of the same weights, state and gradients (`training.kernels: check`).
class CheckedAdamW : public AdamW {
 public:
  CheckedAdamW(const OptimizerFields& fields, const std::vector<Group>& groups)
      : AdamW(fields, groups), other_(fields, copies_of(groups)) {}

 private:
  static std::vector<Group> copies_of(std::vector<Group> groups) {
    for (auto& group : groups) {
      for (auto& p : group.parameters) p.tensor = p.tensor.detach().clone();
      group.copies.clear();
    }
    return groups;
  }

  void apply(const Update& update) override {
    Tensors gradients;
    for (size_t g = 0; g < members_.size(); ++g) {
      other_.set_member(g, members_[g]);
      for (const auto& gradient : members_[g].gradients)
        gradients.push_back(gradient.defined() ? gradient.clone() : gradient);
    }
    AdamW::apply(update);
    other_.set_updates(updates_);
    other_.update(update, gradients);
    const models::KernelScope check(models::Kernels::kCheck);
    for (size_t g = 0; g < members_.size(); ++g)
      for (size_t i = 0; i < members_[g].group.parameters.size(); ++i)
        models::compare_kernel("adamw", members_[g].group.parameters[i].tensor,
                               [&] { return other_.parameter(g, i); });
  }

  class Other : public AtenAdamW {
   public:
    using AtenAdamW::AtenAdamW;
    void set_member(size_t g, const Member& from) {
      Member& member = members_[g];
      for (size_t i = 0; i < member.group.parameters.size(); ++i) {
        member.group.parameters[i].tensor.copy_(from.group.parameters[i].tensor);
        for (size_t k = 0; k < member.state.size(); ++k) member.state[k][i].copy_(from.state[k][i]);
      }
    }
    const at::Tensor& parameter(size_t g, size_t i) const {
      return members_[g].group.parameters[i].tensor;
    }
  };
  Other other_;
};

class Sgd : public AtenOptimizer {
 public:
  Sgd(const OptimizerFields& fields, const std::vector<Group>& groups)
      : AtenOptimizer(groups, fields.momentum > 0 ? std::vector<std::string>{"momentum"}
                                                  : std::vector<std::string>{}),
        momentum_(fields.momentum),
        nesterov_(fields.nesterov) {}

 private:
  void apply(Lists& lists, double lr, double weight_decay,
             const std::optional<at::Tensor>& divisor) override {
    // momentum starts at zero, so the first step needs no case of its own
    at::_fused_sgd_(lists.parameters, lists.gradients,
                    lists.state.empty() ? at::TensorList() : at::TensorList(lists.state[0]),
                    weight_decay, momentum_, lr, /*dampening=*/0, nesterov_, /*maximize=*/false,
                    /*is_first_step=*/false, divisor);
  }

  double momentum_;
  bool nesterov_;
};

using Made = std::unique_ptr<Optimizer>;

struct Entry {
  const char* name;
  Made (*make)(const OptimizerFields&, const std::vector<Group>&, models::Kernels);
  int (*state_tensors)(const OptimizerFields&);
};
const Entry kOptimizers[] = {
    {"adamw",
     [](const OptimizerFields& f, const std::vector<Group>& groups,
        models::Kernels kernels) -> Made {
       if (kernels == models::Kernels::kAten) return std::make_unique<AtenAdamW>(f, groups);
       if (kernels == models::Kernels::kCheck) return std::make_unique<CheckedAdamW>(f, groups);
       return std::make_unique<AdamW>(f, groups);
     },
     [](const OptimizerFields&) { return 2; }},
    {"sgd",
     [](const OptimizerFields& f, const std::vector<Group>& groups, models::Kernels) -> Made {
       return std::make_unique<Sgd>(f, groups);
     },
     [](const OptimizerFields& f) { return f.momentum > 0 ? 1 : 0; }}};

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
    Member member{group, {}, std::vector<Tensors>(kinds_.size())};
    member.group.copies.resize(group.parameters.size());
    for (auto& list : member.state)
      for (const auto& p : group.parameters)
        list.push_back(at::zeros_like(p.tensor, p.tensor.options().requires_grad(false)));
    members_.push_back(std::move(member));
  }
}

void Optimizer::update(const Update& update, const Tensors& gradients) {
  c10::NoGradGuard no_grad;
  auto next = gradients.begin();
  for (auto& member : members_) {
    const auto end = next + static_cast<std::ptrdiff_t>(member.group.parameters.size());
    member.gradients.assign(next, end);
    next = end;
  }
  apply(update);
  for (auto& member : members_) member.gradients.clear();
  ++updates_;
}

bool Optimizer::take_averages(const Tensors&, double) { return false; }

NamedTensors Optimizer::state() const {
  NamedTensors result;
  for (const auto& member : members_)
    for (size_t k = 0; k < kinds_.size(); ++k)
      for (size_t i = 0; i < member.group.parameters.size(); ++i)
        result.push_back({kinds_[k] + "." + member.group.parameters[i].name, member.state[k][i]});
  return result;
}

void check_fields(const OptimizerFields& fields) {
  const FloatList& betas = fields.betas;
  if (betas.size() != 2 || !(betas[0] >= 0 && betas[0] < 1 && betas[1] >= 0 && betas[1] < 1))
    throw Error(Code::kRecipe, "betas are not two numbers in [0, 1)", "optimizer.betas",
                "write for example [0.9, 0.999]");
  if (fields.nesterov && fields.momentum == 0)
    throw Error(Code::kRecipe, "nesterov without momentum", "optimizer.nesterov",
                "set optimizer.momentum above 0, or leave nesterov out");
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerFields& fields,
                                          const std::vector<Group>& groups,
                                          models::Kernels kernels) {
  check_fields(fields);
  return find_optimizer(fields.name).make(fields, groups, kernels);
}

int state_tensors(const OptimizerFields& fields) {
  return find_optimizer(fields.name).state_tensors(fields);
}

}  // namespace lehr::step
