// Language models in Hugging Face's folders: config.json, model.safetensors (one or several) and
// tokenizer.json, read and written, so that transformers gives our ids and texts. What config.json
// says is taken whole or not at all: a field that changes the mathematics and is not known here is
// refused by name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/data/dataset.h"
#include "engine/data/tokenizer.h"
#include "models/model.h"

namespace lehr::artefact {

// True for a folder with a config.json and no manifest of ours.
bool is_huggingface(const std::string& path);
// What is wrong with a folder that is neither ours nor such a one, where it holds weights.
std::optional<Error> foreign_folder(const std::string& folder);

// The shape of a model, in the words of the recipe's section `model`; nothing is left to a default.
struct Shape {
  std::string model;  // gpt2 or llama
  int64_t vocabulary = 0, positions = 0;
  int64_t layers = 0, heads = 0, width = 0, mlp_width = 0;
  double layer_norm_eps = 1e-5;  // gpt2
  int64_t kv_heads = 0, head_size = 0;
  double rms_norm_eps = 1e-5, rope_theta = 500000;
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4;
  int64_t rope_original_positions = 8192;
  bool tied = true;
};
// Throws Error{kCheckpoint} naming what is missing, unknown or not supported.
Shape read_huggingface_config(const std::string& folder);
// Of a model that was made from these fields. Throws Error{kRecipe} for models of other kinds.
Shape shape_of(const FieldSource& fields, const models::LanguageModel& model);
// Throws Error{kRecipe} with every difference in it, both values named.
void check_shape(const Shape& recipe, const Shape& wanted, const std::string& folder);
// The ids that end a text: eos_token_id of generation_config.json, or else of config.json.
std::vector<int64_t> huggingface_ends(const std::string& folder);
// config.json of a model; no tokenizer: nullptr.
std::string huggingface_config(const Shape& shape, const data::Tokenizer* tokenizer);
// generation_config.json: ids that begin and end a text, and numbers that are no token, which are
// never drawn.
std::string huggingface_generation(const Shape& shape, const data::Tokenizer& tokenizer);
// tokenizer_config.json: tokenizer.json is taken as it is.
std::string huggingface_tokenizer(const Shape& shape, const data::Tokenizer& tokenizer);
// The recipe's section `model`, as lines of YAML.
std::string recipe_of(const Shape& shape);

// Parameters under Hugging Face's names, in their shapes; q, k, v and gate, up apart, rows beyond
// the vocabulary cut off. Also of anything else with a tensor for each parameter: gradients.
NamedTensors to_huggingface(const NamedTensors& parameters, int64_t vocabulary);
// Copies the weights of `folder` (fp32, bf16 or fp16) into the model's parameters. Throws
// Error{kCheckpoint} for a tensor that is missing, left over or of another shape.
void load_huggingface(const std::string& folder, models::LanguageModel& model);
// Writes config.json, generation_config.json, model.safetensors and, of bytes and a byte-level BPE,
// tokenizer.json with tokenizer_config.json; `tokenizer`: json(), or "". They were read again and
// are the model's when this returns.
void export_huggingface(const FieldSource& fields, const models::LanguageModel& model,
                        const std::string& tokenizer, const std::string& output);

// Stands in for the data of a model that comes without any: random tokens.
std::shared_ptr<data::Dataset> random_text(const Shape& shape, const std::string& tokenizer);

}  // namespace lehr::artefact
