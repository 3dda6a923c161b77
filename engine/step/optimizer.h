// The rules that move weights. All state is tensors by name and one count of updates, made at the
// start so that a checkpoint always has the same tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/base/named_tensor.h"
#include "engine/step/fields.h"
#include "engine/step/groups.h"
#include "models/ops.h"

namespace lehr::step {

using Tensors = std::vector<at::Tensor>;

struct Update {
  double lr = 0;
  double divide = 1;    // what the gradients were multiplied by (the loss scale)
  double norm = 0;      // global, of gradient / divide
  double max_norm = 0;  // gradients longer than this are shortened to it; 0: none is
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // Moves every parameter that has a gradient; one without is left alone, its state too.
  // `gradients`: one for each parameter, in the order of the groups, of any floating type; may be
  // overwritten. A group's copies are written with the new weights.
  void update(const Update& update, const Tensors& gradients);
  // From now on moves averages too (engine/step/average.h), one for each parameter, where the rule
  // can do so in its own pass. False: it cannot, and does not.
  virtual bool take_averages(const Tensors& averages, double decay);
  // "exp_avg.fc.weight", ...
  NamedTensors state() const;
  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }

 protected:
  // `kinds` names the state tensors that each parameter has, zero at the start.
  Optimizer(const std::vector<Group>& groups, std::vector<std::string> kinds);
  struct Member {
    Group group;
    Tensors gradients;           // undefined where there is none
    std::vector<Tensors> state;  // one list per kind
  };
  virtual void apply(const Update& update) = 0;
  std::vector<Member> members_;
  int64_t updates_ = 0;

 private:
  std::vector<std::string> kinds_;
};

// Throws Error{kRecipe} for values that cannot be together.
void check_fields(const OptimizerFields& fields);
// `kernels`: AdamW by kernels/adamw or by ATen's op. Throws Error{kRecipe} for an unknown
// name or values out of range.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerFields& fields,
                                          const std::vector<Group>& groups,
                                          models::Kernels kernels);
// State tensors that each parameter will have.
int state_tensors(const OptimizerFields& fields);

}  // namespace lehr::step
