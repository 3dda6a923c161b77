// Sorts a model's parameters into groups that share step size and weight decay, by regular
// expressions over their names. A pattern that matches nothing is an error: it is a typo.
#pragma once

#include <string>
#include <vector>

#include "engine/base/named_tensor.h"
#include "engine/step/fields.h"

namespace lehr::step {

struct Group {
  double lr_factor = 1, weight_decay = 0;
  NamedTensors parameters;
  // of each parameter, in the precision that the model computes with; undefined where there is none
  std::vector<at::Tensor> copies;
};

struct Groups {
  std::vector<Group> groups;  // in the order in which their first parameters come
  NamedTensors frozen;
};

// A pattern may match anywhere in a name ("^fc" anchors). Throws Error{kRecipe} naming a pattern
// that is no regular expression or matches no parameter, and when everything is frozen.
Groups make_groups(const NamedTensors& parameters, const OptimizerFields& fields);
// The recipe's weight decay, or the optimizer's own default.
double default_weight_decay(const OptimizerFields& fields);
// "decay 0.01: 3 tensors, 4,160 numbers; no decay (norms and biases): ...; frozen: ..."
std::string describe(const Groups& groups, const OptimizerFields& fields);

}  // namespace lehr::step
