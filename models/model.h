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
  // images: channels > 0; tables: features > 0; text: vocabulary > 0
  int64_t channels = 0, height = 0, width = 0, features = 0;
  int64_t vocabulary = 0, context = 0;  // token ids are below vocabulary; tokens per sample
  int64_t outputs = 1;                  // logits or values per sample (text: per token)
  at::TensorOptions options;            // device and dtype of parameters; meta allowed
  uint64_t seed = 0;                    // initial values are a function of (seed, parameter name)
};

class Model : public Module {
 public:
  // x: images [B, C, H, W] (channels-last preferred) or table [B, F]; returns [B, outputs].
  // Text: token ids int64 [B, T]; returns [B, T, outputs], the logits of the token that follows.
  virtual at::Tensor forward(const at::Tensor& x) = 0;
};

// Keys and values of the tokens that a language model has seen, one pair a layer, each
// [B, heads, length, head size]; empty at first.
struct KeyValueCache {
  std::vector<at::Tensor> keys, values;
  int64_t length = 0;
};

// A language model shows its last hidden states and the matrix that turns them into logits, so that
// a loss can do both chunk by chunk and never holds the logits of all tokens.
class LanguageModel : public Model {
 public:
  struct Input {
    at::Tensor ids;                  // int64 [B, T]
    at::Tensor segments;             // int64 [B, T] (see Batch) or undefined
    KeyValueCache* cache = nullptr;  // ids follow what it holds; appended to. T is 1 unless empty
  };
  virtual at::Tensor hidden(const Input& input) = 0;  // [B, T, D], after the last norm
  virtual at::Tensor head() const = 0;                // [rows >= vocabulary, D]
  virtual int64_t vocabulary() const = 0;             // rows of the head that are tokens
  virtual int64_t longest() const = 0;                // tokens that one forward takes
  at::Tensor logits(const Input& input);              // [B, T, V]
  at::Tensor forward(const at::Tensor& ids) override { return logits({ids, {}, nullptr}); }
};

// Section `model`: what is common to all models.
struct ModelFields {
  std::string name = "mlp";
  std::string init_from;   // checkpoint whose weights to start from; "" for fresh ones
  std::string pretrained;  // Hugging Face folder, likewise
  static Section section();
};

struct ModelEntry {
  std::string name;
  std::string text;  // one sentence
  bool takes_images = false, takes_tables = false, takes_text = false;
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
  bool recorded = false;  // into a graph, whose every replay would drop the same: Error{kRecipe}
};
void set_dropout_key(const DropoutKey* key);  // nullptr clears
const DropoutKey* dropout_key();              // of this thread; nullptr: none
// p in [0, 1); identity in eval. `layer` distinguishes the dropouts of one model.
at::Tensor dropout(const at::Tensor& x, double p, int64_t layer, bool training);

}  // namespace lehr::models
