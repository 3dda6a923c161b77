// The rules that move weights: ATen's fused ops over the lists of one parameter group each. All
// state is tensors by name and one count of updates, made at the start so that a checkpoint always
// has the same tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/base/named_tensor.h"
#include "engine/step/fields.h"
#include "engine/step/groups.h"

namespace lehr::step {

using Tensors = std::vector<at::Tensor>;

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // Moves every parameter that has a gradient; one without is left alone, its state too. `divisor`,
  // a 0-d float32 tensor on the device or undefined, divides the gradients first (loss scale and
  // clipping, at no extra pass); they are overwritten by the quotient.
  void update(double lr, const at::Tensor& divisor);
  // "exp_avg.fc.weight", ...
  NamedTensors state() const;
  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }

 protected:
  // `kinds` names the state tensors that each parameter has, zero at the start.
  Optimizer(const std::vector<Group>& groups, std::vector<std::string> kinds);
  struct Lists {
    Tensors parameters, gradients;
    std::vector<Tensors> state;  // one list per kind
  };
  // One group; `lists` are of equal length, never empty.
  virtual void apply(Lists& lists, double lr, double weight_decay, const at::Tensor& divisor) = 0;
  int64_t updates_ = 0;

 private:
  struct Member {
    const Group group;
    Lists lists;
  };
  std::vector<Member> members_;
  std::vector<std::string> kinds_;
};

// Throws Error{kRecipe} for an unknown name or values out of range.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerFields& fields,
                                          const std::vector<Group>& groups);
// State tensors that each parameter will have.
int state_tensors(const OptimizerFields& fields);

}  // namespace lehr::step
