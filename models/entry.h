// What the models share in describing themselves: an input's size, and mistakes in their fields.
#pragma once

#include "engine/base/error.h"
#include "models/model.h"

namespace lehr::models {

// Numbers per sample, whatever the input is.
inline int64_t input_size(const ModelContext& c) {
  return c.features > 0 ? c.features : c.channels * c.height * c.width;
}

inline Error field_error(const std::string& field, const std::string& what,
                         const std::string& hint) {
  return Error(Code::kRecipe, what, "model." + field, hint);
}

// The small contexts of the common tests.
inline ModelContext toy_images(int64_t channels, int64_t size, int64_t outputs) {
  ModelContext c;
  c.channels = channels, c.height = size, c.width = size, c.outputs = outputs;
  return c;
}
inline ModelContext toy_table(int64_t features, int64_t outputs) {
  ModelContext c;
  c.features = features, c.outputs = outputs;
  return c;
}
inline ModelContext toy_text(int64_t vocabulary, int64_t context) {
  ModelContext c;
  c.vocabulary = c.outputs = vocabulary, c.context = context;
  return c;
}

}  // namespace lehr::models
