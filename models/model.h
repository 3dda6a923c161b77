// What the outside sees of a model: how to make one by name, and forward. A model knows nothing of
// ranks, files or clocks, uses size-free ops only (so that a trace holds for any batch), and makes
// its parameters with the given TensorOptions (so that the meta device works).
#pragma once

#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/fields.h"
#include "models/module.h"

namespace lehr::models {

struct ModelContext {
  // images: channels > 0; tables: features > 0
  int64_t channels = 0, height = 0, width = 0, features = 0;
  int64_t outputs = 1;        // logits or values per sample
  at::TensorOptions options;  // device and dtype of parameters; meta allowed
  uint64_t seed = 0;          // initial values are a function of (seed, parameter name)
};

class Model : public Module {
 public:
  // x: images [B, C, H, W] (channels-last preferred) or table [B, F]; returns [B, outputs]
  virtual at::Tensor forward(const at::Tensor& x) = 0;
};

// Section `model`: what is common to all models.
struct ModelFields {
  std::string name = "mlp";
  std::string init_from;  // checkpoint whose weights to start from; "" for fresh ones
  static Section section();
};

struct ModelEntry {
  std::string name;
  std::string text;  // one sentence
  bool takes_images = false, takes_tables = false;
  Section (*section)();  // its own fields of section `model`, when name is its own
  std::shared_ptr<Model> (*make)(const FieldSource& fields, const ModelContext& context);
  // toy size for the common tests
  FixedFields toy_fields;
  ModelContext toy_context;
};

const std::vector<ModelEntry>& registry();
// Throws Error{kRecipe} with the nearest name when unknown, or when the model does not take this
// input.
std::shared_ptr<Model> make_model(const FieldSource& fields, const ModelContext& context);

// Keyed dropout: the mask of a sample is a function of (seed, step, layer, sample id) alone. The
// step sets the key for the current thread before forward; without one dropout is a plain
// Error{kInternal}.
struct DropoutKey {
  uint64_t seed = 0;
  int64_t step = 0;
  const std::vector<int64_t>* samples = nullptr;
};
void set_dropout_key(const DropoutKey* key);  // nullptr clears
// p in [0, 1); identity in eval. `layer` distinguishes the dropouts of one model.
at::Tensor dropout(const at::Tensor& x, double p, int64_t layer, bool training);

}  // namespace lehr::models
