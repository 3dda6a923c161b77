// Finds out what made a loss or gradient non-finite, after the fact: nothing here runs in a healthy
// step, so it may recompute the forward as often as it likes.
#pragma once

#include <string>
#include <vector>

#include "engine/base/batch.h"
#include "engine/base/named_tensor.h"
#include "engine/step/loss.h"
#include "engine/step/precision.h"
#include "models/model.h"

namespace lehr::step {

struct Suspects {
  models::Model& model;
  const Loss& loss;
  const std::vector<Batch>& micro;
  const NamedTensors& parameters;           // the trained ones, with their gradients
  std::optional<at::ScalarType> precision;  // of the forward
  models::DropoutKey dropout;               // seed and step
  StringList statistics;  // names of batch statistics that the step would have made so
};

struct Culprit {
  std::string text;
  bool found;  // false: neither a sample of this rank nor a parameter from before explains it
};

// One sentence that names, in this order of suspicion: parameters that held such values before the
// step; samples with such inputs, targets or losses (id, epoch, micro-batch, position; the first
// eight); batch statistics; parameters with such gradients. Runs the model in evaluation mode
// first, because batch statistics spread one bad sample over its batch. Modes are put back; buffers
// may change.
Culprit find_culprit(const Suspects& suspects);

}  // namespace lehr::step
