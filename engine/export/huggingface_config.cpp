// config.json as a shape, and back.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/what_is.h"
#include "engine/export/huggingface.h"

namespace lehr::artefact {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kConfigLimit = 16 << 20;
constexpr const char* kAgain = "It is not what save_pretrained writes: download it again.";

// They say nothing of what the model computes in evaluation.
const std::set<std::string> kHarmless = {
    // how it was made, and how transformers handles it
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path",
    "_num_labels", "architectures", "chunk_size_feed_forward", "dtype", "finetuning_task",
    "gradient_checkpointing", "id2label", "initializer_range", "is_decoder", "is_llama_config",
    "keys_to_ignore_at_inference", "label2id", "max_sequence_length", "model_type", "n_ctx",
    "num_labels", "output_attentions", "output_hidden_states", "output_past",
    "predict_special_tokens", "pretraining_tp", "problem_type", "return_dict", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript",
    "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version",
    "use_bfloat16", "use_cache",
    // dropout
    "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop",
    // which tokens mean what, and how text is drawn
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id",
    "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "eos_token_id", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "pad_token_id",
    "prefix", "remove_invalid_values", "repetition_penalty", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p"};

// Why some are refused, and what can be done.
const char* remedy_of(const std::string& key) {
  if (key == "model_type") return "Models of type gpt2 and llama are taken.";
  if (key == "quantization_config" || key == "compression_config")
    return "Quantized weights are not read: take the model that this one was made from.";
  if (key == "attention_bias" || key == "mlp_bias") return "Lehr's llama has no such biases.";
  if (key == "auto_map")
    return "The model brings code of its own, which is not run. If it computes what transformers' "
           "own class does, take this field out of config.json.";
  if (key.starts_with("rope_"))
    return "Positions are turned as in Llama (rope_type default) or Llama 3.1 (llama3).";
  return "Lehr does not know what it computes. If the model does without it, take the field out of "
         "a copy of config.json; if not, this model cannot be taken.";
}

// Values that switch nothing on.
bool says_nothing(const std::string& key, const Json& value) {
  if (value.is_null() || value == false || value == 0 || value == "") return true;
  for (const char* ending : {"_factor", "_multiplier", "_scaling", "_scale"})
    if (value == 1 && key.ends_with(ending)) return true;
  if (key == "layer_types" && value.is_array())
    return std::all_of(value.begin(), value.end(),
                       [](const Json& type) { return type == "full_attention"; });
  return value.is_structured() && value.empty();
}

// Throws Error{kCheckpoint} naming line and column.
Json parsed(const std::string& path) try {
  const std::string text = read_file(path, kConfigLimit);
  return Json::parse(plain_text(text, path, Code::kCheckpoint), nullptr, true,
                     /*ignore_comments=*/true);
} catch (const Json::parse_error& error) {
  const std::string what = error.what();
  throw Error(Code::kCheckpoint, "is no JSON: " + what.substr(what.find("] ") + 2), path, kAgain);
}

// Reads fields of one JSON object and knows in the end which nobody asked for.
class Reader {
 public:
  Reader(const Json& json, std::string path, std::string prefix = "")
      : json_(json), path_(std::move(path)), prefix_(std::move(prefix)) {
    if (!json.is_object()) throw Error(Code::kCheckpoint, "is no JSON object", path_, kAgain);
  }

  Error refuse(const std::string& key, const std::string& what) const {
    return Error(Code::kCheckpoint, fmt::format("{}{} {}", prefix_, key, what), path_,
                 remedy_of(prefix_ + key));
  }
  // a value that the field cannot have
  Error wrong(const std::string& key, const std::string& what) const {
    return Error(Code::kCheckpoint, fmt::format("{}{} {}", prefix_, key, what), path_, kAgain);
  }
  const Json* find(const std::string& key) {
    known_.insert(key);
    auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t integer(const std::string& key, std::optional<int64_t> otherwise = std::nullopt) {
    const Json* value = find(key);
    if (!value && otherwise) return *otherwise;
    if (!value) throw wrong(key, "is missing");
    constexpr int64_t kMost = int64_t{1} << 31;
    if (!value->is_number_integer() || *value < 1 || *value > kMost)
      throw wrong(key, fmt::format("is {}, not a whole number above 0", value->dump()));
    return value->get<int64_t>();
  }
  double number(const std::string& key, std::optional<double> otherwise = std::nullopt) {
    const Json* value = find(key);
    if (!value && otherwise) return *otherwise;
    if (!value) throw wrong(key, "is missing");
    if (!value->is_number() || !(value->get<double>() > 0))
      throw wrong(key, fmt::format("is {}, not a number above 0", value->dump()));
    return value->get<double>();
  }
  std::string text(const std::string& key, const std::string& otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_string()) throw wrong(key, fmt::format("is {}, not a text", value->dump()));
    return value->get<std::string>();
  }
  bool truth(const std::string& key, bool otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_boolean())
      throw wrong(key, fmt::format("is {}, not true or false", value->dump()));
    return value->get<bool>();
  }
  // a second name of something that was read already
  void same(const std::string& key, int64_t value) {
    if (integer(key, value) != value)
      throw wrong(key, fmt::format("is {}, and another field says {}", integer(key), value));
  }
  // Every field that was not asked for must be harmless, or say nothing.
  void finish(const std::set<std::string>& harmless) const {
    for (const auto& [key, value] : json_.items())
      if (!known_.count(key) && !harmless.count(key) && !says_nothing(key, value))
        throw refuse(key, fmt::format("is {}, which is not supported", value.dump()));
  }

 private:
  const Json& json_;
  std::string path_, prefix_;
  std::set<std::string> known_;
};

void require(const Reader& reader, bool holds, const std::string& key, const std::string& what) {
  if (!holds) throw reader.refuse(key, what + ", which is not supported");
}

Shape read_gpt2(Reader& in) {
  Shape s;
  s.model = "gpt2";
  s.vocabulary = in.integer("vocab_size");
  s.positions = in.integer("n_positions", 1024);
  s.layers = in.integer("n_layer");
  s.heads = in.integer("n_head");
  s.width = in.integer("n_embd");
  s.mlp_width = in.integer("n_inner", 4 * s.width);
  s.layer_norm_eps = in.number("layer_norm_epsilon", 1e-5);
  const std::string activation = in.text("activation_function", "gelu_new");
  require(in, activation == "gelu_new" || activation == "gelu_pytorch_tanh", "activation_function",
          fmt::format("is {}", activation));
  require(in, in.truth("scale_attn_weights", true), "scale_attn_weights", "is false");
  require(in, in.truth("tie_word_embeddings", true), "tie_word_embeddings", "is false");
  in.same("hidden_size", s.width);
  in.same("num_hidden_layers", s.layers);
  in.same("num_attention_heads", s.heads);
  in.same("max_position_embeddings", s.positions);
  return s;
}

// Llama 3.1's stretched wavelengths, or none; `rope_parameters` since transformers 5
void read_rope(Reader& in, const std::string& path, Shape& s) {
  s.rope_theta = in.number("rope_theta", 10000.0);
  const Json* scaling = in.find("rope_scaling");
  const Json* parameters = in.find("rope_parameters");
  for (const auto& [key, json] :
       {std::pair{"rope_scaling", scaling}, std::pair{"rope_parameters", parameters}}) {
    if (!json) continue;
    Reader rope(*json, path, std::string(key) + ".");
    s.rope_theta = rope.number("rope_theta", s.rope_theta);
    const std::string type = rope.text("rope_type", rope.text("type", "default"));
    const bool is_plain = type == "default" || (type == "linear" && rope.number("factor") == 1);
    require(rope, is_plain || type == "llama3", "rope_type", fmt::format("is {}", type));
    if (type == "llama3") {
      s.rope_factor = rope.number("factor");
      s.rope_low_freq_factor = rope.number("low_freq_factor");
      s.rope_high_freq_factor = rope.number("high_freq_factor");
      s.rope_original_positions = rope.integer("original_max_position_embeddings");
    }
    rope.finish({});
  }
}

Shape read_llama(Reader& in, const std::string& path) {
  Shape s;
  s.model = "llama";
  s.vocabulary = in.integer("vocab_size");
  s.positions = in.integer("max_position_embeddings", 2048);
  s.layers = in.integer("num_hidden_layers");
  s.heads = in.integer("num_attention_heads");
  s.width = in.integer("hidden_size");
  s.mlp_width = in.integer("intermediate_size");
  s.kv_heads = in.integer("num_key_value_heads", s.heads);
  s.head_size = in.integer("head_dim", s.width / s.heads);
  s.rms_norm_eps = in.number("rms_norm_eps", 1e-6);
  s.tied = in.truth("tie_word_embeddings", false);
  const std::string activation = in.text("hidden_act", "silu");
  require(in, activation == "silu" || activation == "swish", "hidden_act",
          fmt::format("is {}", activation));
  read_rope(in, path, s);
  return s;
}

// ids of config.json and generation_config.json; null: there is none
struct Ends {
  Json begin, end;
};
Ends ends_of(const data::Tokenizer* tokenizer) {
  Ends ends;
  if (tokenizer == nullptr) return ends;
  if (const auto end = tokenizer->end_of_text()) ends.begin = ends.end = *end;
  if (const auto begin = tokenizer->begin_of_text(); !begin.empty()) ends.begin = begin[0];
  return ends;
}

struct Gpt2Shape {
  int64_t layers = 12, heads = 12, width = 768, mlp_width = 0;
  double layer_norm_eps = 1e-5;
  static Section section() {
    using F = Gpt2Shape;
    Declare<F> d("model", "");
    d.field("layers", &F::layers, "").when("name", {"gpt2"});
    d.field("heads", &F::heads, "").when("name", {"gpt2"});
    d.field("width", &F::width, "").when("name", {"gpt2"});
    d.field("mlp_width", &F::mlp_width, "").when("name", {"gpt2"});
    d.field("layer_norm_eps", &F::layer_norm_eps, "").when("name", {"gpt2"});
    return d.section();
  }
};

struct LlamaShape {
  int64_t layers = 16, heads = 32, kv_heads = 0, head_size = 0, width = 2048, mlp_width = 8192;
  double rms_norm_eps = 1e-5, rope_theta = 500000;
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4;
  int64_t rope_original_positions = 8192;
  bool tied = true;
  static Section section() {
    using F = LlamaShape;
    Declare<F> d("model", "");
    for (const auto& [name, member] : std::vector<std::pair<const char*, int64_t F::*>>{
             {"layers", &F::layers},
             {"heads", &F::heads},
             {"kv_heads", &F::kv_heads},
             {"head_size", &F::head_size},
             {"width", &F::width},
             {"mlp_width", &F::mlp_width},
             {"rope_scaling.original_positions", &F::rope_original_positions}})
      d.field(name, member, "").when("name", {"llama"});
    for (const auto& [name, member] : std::vector<std::pair<const char*, double F::*>>{
             {"rms_norm_eps", &F::rms_norm_eps},
             {"rope_theta", &F::rope_theta},
             {"rope_scaling.factor", &F::rope_factor},
             {"rope_scaling.low_freq_factor", &F::rope_low_freq_factor},
             {"rope_scaling.high_freq_factor", &F::rope_high_freq_factor}})
      d.field(name, member, "").when("name", {"llama"});
    d.field("tied", &F::tied, "").when("name", {"llama"});
    return d.section();
  }
};

// (name in the recipe, value as text) of everything that decides what the model computes
std::vector<std::pair<std::string, std::string>> values_of(const Shape& s) {
  auto number = [](double v) {
    return v == std::floor(v) && std::abs(v) < 1e15 ? fmt::format("{:.0f}.0", v)
                                                    : fmt::format("{}", v);
  };
  std::vector<std::pair<std::string, std::string>> values = {
      {"name", s.model},
      {"layers", std::to_string(s.layers)},
      {"heads", std::to_string(s.heads)},
      {"width", std::to_string(s.width)},
      {"mlp_width", std::to_string(s.mlp_width)}};
  if (s.model == "gpt2") {
    values.emplace_back("layer_norm_eps", number(s.layer_norm_eps));
    return values;
  }
  values.emplace_back("kv_heads", std::to_string(s.kv_heads));
  values.emplace_back("head_size", std::to_string(s.head_size));
  values.emplace_back("rms_norm_eps", number(s.rms_norm_eps));
  values.emplace_back("rope_theta", number(s.rope_theta));
  values.emplace_back("tied", s.tied ? "true" : "false");
  values.emplace_back("rope_scaling.factor", number(s.rope_factor));
  if (s.rope_factor == 1) return values;
  values.emplace_back("rope_scaling.low_freq_factor", number(s.rope_low_freq_factor));
  values.emplace_back("rope_scaling.high_freq_factor", number(s.rope_high_freq_factor));
  values.emplace_back("rope_scaling.original_positions", std::to_string(s.rope_original_positions));
  return values;
}

}  // namespace

bool is_huggingface(const std::string& path) {
  return file_exists(join_path(path, "config.json")) &&
         !file_exists(join_path(path, "MANIFEST.json"));
}

Shape read_huggingface_config(const std::string& folder) {
  const std::string path = join_path(folder, "config.json");
  if (!file_exists(path))
    throw Error(Code::kCheckpoint, "there is no config.json here", folder,
                "name a folder that save_pretrained wrote");
  const Json json = parsed(path);
  Reader in(json, path);
  const std::string type = in.text("model_type", "");
  if (type != "gpt2" && type != "llama")
    throw in.refuse("model_type",
                    fmt::format("is {}, which is not supported", type.empty() ? "missing" : type));
  const Shape shape = type == "gpt2" ? read_gpt2(in) : read_llama(in, path);
  in.finish(kHarmless);
  return shape;
}

Shape shape_of(const FieldSource& fields, const models::LanguageModel& model) {
  Shape s;
  s.model = fields.get<models::ModelFields>().name;
  s.vocabulary = model.vocabulary();
  s.positions = model.longest();
  if (s.model == "gpt2") {
    const auto f = fields.get<Gpt2Shape>();
    s.layers = f.layers, s.heads = f.heads, s.width = f.width;
    s.mlp_width = f.mlp_width ? f.mlp_width : 4 * f.width;
    s.layer_norm_eps = f.layer_norm_eps;
    return s;
  }
  if (s.model != "llama")
    throw Error(Code::kRecipe, fmt::format("Hugging Face has no model like `{}`", s.model),
                "model.name", "gpt2 and llama are exchanged");
  const auto f = fields.get<LlamaShape>();
  s.layers = f.layers, s.heads = f.heads, s.width = f.width, s.mlp_width = f.mlp_width;
  s.kv_heads = f.kv_heads ? f.kv_heads : f.heads;
  s.head_size = f.head_size ? f.head_size : f.width / f.heads;
  s.rms_norm_eps = f.rms_norm_eps, s.rope_theta = f.rope_theta, s.tied = f.tied;
  s.rope_factor = f.rope_factor, s.rope_low_freq_factor = f.rope_low_freq_factor;
  s.rope_high_freq_factor = f.rope_high_freq_factor;
  s.rope_original_positions = f.rope_original_positions;
  return s;
}

void check_shape(const Shape& recipe, const Shape& wanted, const std::string& folder) {
  std::string problems;
  auto differs = [&](const std::string& name, const std::string& ours, const std::string& theirs) {
    problems += fmt::format("\n  {} is {}, and its config.json says {}", name, ours, theirs);
  };
  if (recipe.model != wanted.model) {
    differs("model.name", recipe.model, wanted.model);
  } else {
    const auto ours = values_of(recipe), theirs = values_of(wanted);
    for (size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i)
      if (ours[i].second != theirs[i].second)
        differs("model." + ours[i].first, ours[i].second, theirs[i].second);
  }
  if (recipe.vocabulary != wanted.vocabulary)
    differs("the vocabulary of the data", std::to_string(recipe.vocabulary),
            std::to_string(wanted.vocabulary));
  // learned positions are weights; computed ones are only a limit
  if (wanted.model == "gpt2" ? recipe.positions != wanted.positions
                             : recipe.positions > wanted.positions)
    differs("model.max_positions (0: data.context)", std::to_string(recipe.positions),
            std::to_string(wanted.positions));
  if (!problems.empty())
    throw Error(Code::kRecipe, "the recipe's model is not the one in " + folder + ":" + problems,
                "model.pretrained", "set these fields to what config.json says");
}

std::string recipe_of(const Shape& shape) {
  std::string text = "model:\n";
  for (const auto& [name, value] : values_of(shape)) {
    const size_t dot = name.find('.');
    if (dot == std::string::npos) {
      text += fmt::format("  {}: {}\n", name, value);
    } else {
      if (name == "rope_scaling.factor") text += "  rope_scaling:\n";
      text += fmt::format("    {}: {}\n", name.substr(dot + 1), value);
    }
  }
  return text + fmt::format("  max_positions: {}\n", shape.positions);
}

std::vector<int64_t> huggingface_ends(const std::string& folder) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    const std::string path = join_path(folder, name);
    if (!file_exists(path)) continue;
    const Json json = parsed(path);
    const auto ends = json.find("eos_token_id");
    if (ends == json.end() || ends->is_null()) continue;
    std::vector<int64_t> ids;
    for (const Json& id : ends->is_array() ? *ends : Json::array({*ends}))
      if (id.is_number_integer()) ids.push_back(id.get<int64_t>());
    return ids;
  }
  return {};
}

std::string huggingface_config(const Shape& s, const data::Tokenizer* tokenizer) {
  const Ends ends = ends_of(tokenizer);
  Json json = {{"model_type", s.model}, {"vocab_size", s.vocabulary}};
  if (s.model == "gpt2") {
    json["architectures"] = Json::array({"GPT2LMHeadModel"});
    json["n_positions"] = s.positions;
    json["n_layer"] = s.layers;
    json["n_head"] = s.heads;
    json["n_embd"] = s.width;
    json["n_inner"] = s.mlp_width;
    json["layer_norm_epsilon"] = s.layer_norm_eps;
    json["activation_function"] = "gelu_new";
    json["tie_word_embeddings"] = true;
  } else {
    json["architectures"] = Json::array({"LlamaForCausalLM"});
    json["max_position_embeddings"] = s.positions;
    json["num_hidden_layers"] = s.layers;
    json["num_attention_heads"] = s.heads;
    json["num_key_value_heads"] = s.kv_heads;
    json["head_dim"] = s.head_size;
    json["hidden_size"] = s.width;
    json["intermediate_size"] = s.mlp_width;
    json["hidden_act"] = "silu";
    json["rms_norm_eps"] = s.rms_norm_eps;
    json["rope_theta"] = s.rope_theta;
    Json rope;
    if (s.rope_factor != 1)
      rope = {{"rope_type", "llama3"},
              {"factor", s.rope_factor},
              {"low_freq_factor", s.rope_low_freq_factor},
              {"high_freq_factor", s.rope_high_freq_factor},
              {"original_max_position_embeddings", s.rope_original_positions}};
    json["rope_scaling"] = rope;
    json["tie_word_embeddings"] = s.tied;
    json["attention_bias"] = json["mlp_bias"] = false;
  }
  json["bos_token_id"] = ends.begin, json["eos_token_id"] = ends.end;
  json["torch_dtype"] = "float32";
  return json.dump(2) + "\n";
}

std::string huggingface_generation(const Shape& s, const data::Tokenizer& tokenizer) {
  const Ends ends = ends_of(&tokenizer);
  Json json = Json::object();
  if (!ends.begin.is_null()) json["bos_token_id"] = ends.begin;
  if (!ends.end.is_null()) json["eos_token_id"] = ends.end;
  std::vector<int64_t> sizes = tokenizer.sizes(), none;
  sizes.resize(s.vocabulary, data::Tokenizer::kNoToken);
  for (int64_t id = 0; id < s.vocabulary; ++id)
    if (sizes[id] == data::Tokenizer::kNoToken) none.push_back(id);
  if (!none.empty()) json["suppress_tokens"] = none;
  return json.dump(2) + "\n";
}

std::string huggingface_tokenizer(const Shape& s, const data::Tokenizer& tokenizer) {
  // nothing is left to a class that transformers would choose by the model
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"clean_up_tokenization_spaces", false},
               {"model_max_length", s.positions}};
  const data::Tokens begin = tokenizer.begin_of_text();
  if (!begin.empty()) json["bos_token"] = tokenizer.decode({begin[0]});
  if (const auto end = tokenizer.end_of_text()) json["eos_token"] = tokenizer.decode({*end});
  return json.dump(2) + "\n";
}

}  // namespace lehr::artefact
