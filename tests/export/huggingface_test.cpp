// Beside transformers: the same logits, gradients and training from its folders, and the same
// logits there from ours; what a folder says that we cannot compute is refused by name.
#include "engine/export/huggingface.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "engine/base/safetensors.h"
#include "engine/export/verify.h"
#include "engine/step/step.h"
#include "tests/export/toy_text.h"

namespace lehr::artefact {
namespace {

using namespace testing;
using nlohmann::json;

const std::string kPython = LEHR_SOURCE_DIR "/.deps/venv/bin/python";
const std::string kPeer = LEHR_SOURCE_DIR "/tests/export/huggingface_peer.py";

std::string peer(const std::string& arguments) {
  std::string out;
  FILE* pipe =
      popen(fmt::format("OMP_NUM_THREADS=1 {} {} {} 2>&1", kPython, kPeer, arguments).c_str(), "r");
  char buffer[4096];
  while (const size_t n = fread(buffer, 1, sizeof buffer, pipe)) out.append(buffer, n);
  EXPECT_EQ(pclose(pipe), 0) << out;
  return out;
}

at::Tensor tensor_of(const SafetensorsFile& file, const std::string& name) {
  const TensorView* view = file.find(name);
  if (view == nullptr) throw std::runtime_error("the peer gave no " + name);
  const auto type = view->dtype == "I64"   ? at::kLong
                    : view->dtype == "F64" ? at::kDouble
                                           : at::kFloat;
  at::Tensor tensor = at::empty(view->shape, type);
  std::memcpy(tensor.data_ptr(), view->data, view->bytes);
  return tensor;
}

// a shape as the recipe's fields
FixedFields fields_of(const Shape& s) {
  FixedFields f({{"model.name", s.model},
                 {"model.layers", s.layers},
                 {"model.heads", s.heads},
                 {"model.width", s.width},
                 {"model.mlp_width", s.mlp_width},
                 {"model.pad_vocabulary_to", int64_t{64}},
                 {"model.max_positions", s.positions}});
  if (s.model == "gpt2") return f.set("model.layer_norm_eps", s.layer_norm_eps);
  return f.set("model.kv_heads", s.kv_heads)
      .set("model.head_size", s.head_size)
      .set("model.rms_norm_eps", s.rms_norm_eps)
      .set("model.rope_theta", s.rope_theta)
      .set("model.rope_scaling.factor", s.rope_factor)
      .set("model.rope_scaling.low_freq_factor", s.rope_low_freq_factor)
      .set("model.rope_scaling.high_freq_factor", s.rope_high_freq_factor)
      .set("model.rope_scaling.original_positions", s.rope_original_positions)
      .set("model.tied", s.tied);
}

std::shared_ptr<models::LanguageModel> model_of(const Shape& shape) {
  models::ModelContext context;
  context.vocabulary = context.outputs = shape.vocabulary;
  context.context = shape.positions;
  context.options = at::TensorOptions().dtype(at::kFloat);
  return std::dynamic_pointer_cast<models::LanguageModel>(
      models::make_model(fields_of(shape), context));
}

double relative(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).abs().max() / wanted.abs().max()).item<double>();
}

// a folder of transformers, and what it computes
class BesideTransformers : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!file_exists(kPython)) GTEST_SKIP() << "no Python peer: run scripts/setup";
    folder_ = scratch_.file("theirs"), oracle_path_ = scratch_.file("oracle.safetensors");
    peer(fmt::format("make {} {} {}", GetParam(), folder_, oracle_path_));
    oracle_ = std::make_unique<SafetensorsFile>(oracle_path_);
    shape_ = read_huggingface_config(folder_);
    model_ = model_of(shape_);
    load_huggingface(folder_, *model_);
    tokens_ = tensor_of(*oracle_, "tokens");
  }
  at::Tensor inputs() const { return tokens_.slice(1, 0, -1).contiguous(); }
  Scratch scratch_;
  std::string folder_, oracle_path_;
  std::unique_ptr<SafetensorsFile> oracle_;
  Shape shape_;
  std::shared_ptr<models::LanguageModel> model_;
  at::Tensor tokens_;
};
INSTANTIATE_TEST_SUITE_P(Kinds, BesideTransformers,
                         ::testing::Values("gpt2", "gpt2_inner", "llama", "llama_gqa", "llama3"));

TEST_P(BesideTransformers, TheSameLogitsAndGradients) {
  const at::Tensor wanted = tensor_of(*oracle_, "logits");
  model_->train(false);
  const at::Tensor logits = model_->forward(inputs());
  EXPECT_LT((logits - wanted).abs().max().item<double>(), 1e-5 * wanted.abs().max().item<double>());
  at::cross_entropy_loss(logits.flatten(0, 1), tokens_.slice(1, 1).flatten()).backward();
  NamedTensors gradients;
  for (const auto& [name, tensor] : model_->parameters())
    gradients.push_back({name, tensor.grad()});
  size_t compared = 0;
  for (const auto& [name, gradient] : to_huggingface(gradients, shape_.vocabulary)) {
    EXPECT_LT(relative(gradient, tensor_of(*oracle_, "grad." + name)), 1e-5) << name;
    ++compared;
  }
  size_t theirs = 0;
  for (const auto& view : oracle_->tensors()) theirs += view.name.starts_with("grad.");
  EXPECT_EQ(compared, theirs);
}

TEST_P(BesideTransformers, AHundredStepsFollowTheSameLosses) {
  const at::Tensor batches = tensor_of(*oracle_, "batches"), losses = tensor_of(*oracle_, "losses");
  FixedFields fields({{"optimizer.lr", 1e-3}, {"optimizer.weight_decay", 0.1}});
  step::StepContext context;
  context.total_steps = losses.size(0);
  context.is_text = true;
  step::Step step(model_, fields, context);
  model_->train(true);
  for (int64_t s = 0; s < losses.size(0); ++s) {
    const at::Tensor tokens = batches[s % batches.size(0)];
    Batch batch;
    batch.inputs = tokens.slice(1, 0, -1).contiguous();
    batch.targets = tokens.slice(1, 1).contiguous();
    batch.samples.resize(static_cast<size_t>(tokens.size(0)));
    const double wanted = losses[s].item<double>();
    ASSERT_NEAR(step.take({batch}).loss, wanted, 1e-4 * wanted) << s;
  }
  EXPECT_LT(losses[-1].item<double>(), losses[0].item<double>());
}

TEST_P(BesideTransformers, TheWayBackIsTheSameModelThere) {
  const std::string ours = scratch_.file("ours"), out = scratch_.file("out.safetensors");
  const auto tokenizer = data::open_dataset(FixedFields({{"data.source", std::string("text")},
                                                         {"data.train_file", kPeer},
                                                         {"data.tokenizer", std::string("byte")},
                                                         {"data.context", int64_t{8}}}))
                             ->info()
                             .tokenizer;
  export_huggingface(fields_of(shape_), *model_, tokenizer, ours);
  EXPECT_EQ(list_folder(ours),
            (StringList{"config.json", "generation_config.json", "model.safetensors",
                        "tokenizer.json", "tokenizer_config.json"}));
  const auto config = json::parse(peer(fmt::format("logits {} {} {}", ours, oracle_path_, out)));
  EXPECT_EQ(config["vocab_size"], shape_.vocabulary);
  const SafetensorsFile theirs(out);
  const at::Tensor wanted = tensor_of(*oracle_, "logits");
  EXPECT_LT(relative(tensor_of(theirs, "logits"), wanted), 1e-6);
  // and we read it as they do
  auto again = model_of(read_huggingface_config(ours));
  load_huggingface(ours, *again);
  EXPECT_TRUE(same_bits(evaluate(*again, inputs()), evaluate(*model_, inputs())));
}

// folders made here: a config.json that changes, and weights that do or do not fit
class Folder : public ::testing::Test {
 protected:
  json gpt2() const {
    return {{"model_type", "gpt2"},
            {"vocab_size", 13},
            {"n_positions", 8},
            {"n_embd", 16},
            {"n_layer", 1},
            {"n_head", 2},
            {"n_inner", nullptr},
            {"architectures", {"GPT2LMHeadModel"}},
            {"task_specific_params", {{"text-generation", {{"do_sample", true}}}}}};
  }
  json llama() const {
    return {{"model_type", "llama"},    {"vocab_size", 13},         {"max_position_embeddings", 8},
            {"hidden_size", 16},        {"intermediate_size", 24},  {"num_hidden_layers", 1},
            {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"tie_word_embeddings", true}};
  }
  std::string written(const json& config) {
    write(scratch_.file("config.json"), config.dump());
    return scratch_.path();
  }
  Scratch scratch_;
};

TEST_F(Folder, WhatChangesTheMathematicsIsRefusedByName) {
  struct Case {
    bool is_gpt2;
    const char* key;
    json value;
  };
  for (const Case& c : std::vector<Case>{
           {true, "activation_function", "relu"},
           {true, "scale_attn_by_inverse_layer_idx", true},
           {true, "scale_attn_weights", false},
           {true, "reorder_and_upcast_attn", true},
           {true, "add_cross_attention", true},
           {true, "tie_word_embeddings", false},
           {true, "quantization_config", {{"bits", 4}}},
           {true, "n_layer", 0},
           {true, "n_head", "many"},
           {true, "model_type", "gptj"},
           {false, "hidden_act", "gelu"},
           {false, "attention_bias", true},
           {false, "mlp_bias", true},
           {false, "sliding_window", 4096},
           {false, "something_new", 1.5},
           {false, "something_new", 1},
           {false, "final_logit_softcapping", 1.0},
           {false, "auto_map", {{"AutoModel", "modeling.Own"}}},
           {false, "layer_types", {"sliding_attention"}},
           {true, "hidden_size", 32},
           {false, "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}},
           {false, "rope_parameters", {{"rope_type", "yarn"}, {"factor", 2.0}}},
           {false, "rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}},
           {false, "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}}}) {
    json config = c.is_gpt2 ? gpt2() : llama();
    config[c.key] = c.value;
    const std::string folder = written(config);
    const auto message = refused(Code::kCheckpoint, [&] { read_huggingface_config(folder); });
    EXPECT_NE(message.find(c.key), std::string::npos) << message;
    EXPECT_NE(message.find("config.json"), std::string::npos) << message;
    EXPECT_NE(message.find("\n  "), std::string::npos) << "no remedy: " << message;
  }
}

// the fields of published models: each is that model, by its number of parameters, or refused
TEST_F(Folder, ConfigsOfTheMostUsedModelsAreTakenOrRefusedByName) {
  const auto models =
      json::parse(read_file(LEHR_SOURCE_DIR "/tests/export/huggingface_configs.json"));
  ASSERT_GE(models.size(), 45U);
  for (const auto& [name, model] : models.items()) {
    const std::string folder = written(model["config"]);
    if (model.contains("refused")) {
      const auto message = refused(Code::kCheckpoint, [&] { read_huggingface_config(folder); });
      EXPECT_NE(message.find(model["refused"].get<std::string>()), std::string::npos)
          << name << "\n"
          << message;
      continue;
    }
    models::ModelContext context;
    const Shape shape = read_huggingface_config(folder);
    context.vocabulary = context.outputs = shape.vocabulary;
    context.context = shape.positions;
    context.options = at::TensorOptions().dtype(at::kFloat).device(at::kMeta);
    const auto made =
        models::make_model(fields_of(shape).set("model.pad_vocabulary_to", int64_t{1}), context);
    int64_t parameters = 0;
    for (const auto& parameter : made->parameters()) parameters += parameter.tensor.numel();
    EXPECT_EQ(parameters, model["parameters"].get<int64_t>()) << name;
  }
}

TEST_F(Folder, AConfigThatIsNoJsonSaysWhere) {
  write(scratch_.file("config.json"), "{\n  // made by hand\n  \"model_type\": \"gpt2\",\n}\n");
  auto message = [&] {
    return refused(Code::kCheckpoint, [&] { read_huggingface_config(scratch_.path()); });
  };
  EXPECT_NE(message().find("line 4"), std::string::npos) << message();
  write(scratch_.file("config.json"), "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_NE(message().find("git lfs pull"), std::string::npos) << message();
  write(scratch_.file("config.json"), "\xef\xbb\xbf/* mine */" + gpt2().dump());
  EXPECT_EQ(read_huggingface_config(scratch_.path()).vocabulary, 13);
}

TEST_F(Folder, EndsAreThoseOfTheGenerationConfigFirst) {
  json config = llama();
  EXPECT_TRUE(huggingface_ends(written(config)).empty());
  config["eos_token_id"] = 7;
  EXPECT_EQ(huggingface_ends(written(config)), std::vector<int64_t>{7});
  write(scratch_.file("generation_config.json"), R"({"eos_token_id": [3, 5]})");
  EXPECT_EQ(huggingface_ends(scratch_.path()), (std::vector<int64_t>{3, 5}));
}

TEST_F(Folder, WhatSaysNothingIsTaken) {
  json config = gpt2();
  config["sliding_window"] = nullptr;
  config["reorder_and_upcast_attn"] = false;
  config["something_new"] = false;
  config["n_special"] = 0;
  config["pruned_heads"] = json::object();
  config["partial_rotary_factor"] = 1.0;
  config["hidden_size"] = 16;
  config["attn_pdrop"] = 0.3;
  EXPECT_EQ(read_huggingface_config(written(config)).mlp_width, 64);
  config = llama();
  config["rope_theta"] = 7e3;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 4096}};
  const Shape shape = read_huggingface_config(written(config));
  EXPECT_EQ(shape.rope_theta, 7e3);
  EXPECT_EQ(shape.rope_factor, 8);
  EXPECT_EQ(shape.head_size, 4);
  EXPECT_EQ(shape.rms_norm_eps, 1e-6);
}

TEST_F(Folder, EveryDifferenceFromTheRecipeIsNamed) {
  const Shape wanted = read_huggingface_config(written(llama()));
  Shape other = wanted;
  EXPECT_NO_THROW(check_shape(other, wanted, "there"));
  other.layers = 5, other.kv_heads = 4, other.rms_norm_eps = 1e-5, other.tied = false;
  other.vocabulary = 14, other.positions = 9;
  const auto message = refused(Code::kRecipe, [&] { check_shape(other, wanted, "there"); });
  for (const char* part :
       {"model.layers is 5, and its config.json says 1", "model.kv_heads is 4",
        "model.rms_norm_eps is 1e-05, and its config.json says 1e-06", "model.tied is false",
        "14, and its config.json says 13", "9, and its config.json says 8"})
    EXPECT_NE(message.find(part), std::string::npos) << part << "\n" << message;
  other = wanted, other.positions = 4;  // a shorter context is a part of a longer one
  EXPECT_NO_THROW(check_shape(other, wanted, "there"));
}

// Writes the model's weights as transformers would, each as `change` leaves it.
void write_weights(const std::string& path, const models::LanguageModel& model,
                   const std::function<bool(std::string& name, at::Tensor& tensor)>& change,
                   const char* dtype = "F32") {
  std::vector<TensorView> views;
  NamedTensors alive;
  for (auto& [name, tensor] : to_huggingface(model.parameters(), model.vocabulary()))
    if (change(name, tensor)) alive.push_back({name, tensor});
  for (const auto& [name, tensor] : alive)
    views.push_back({name, dtype, tensor.sizes().vec(), tensor.data_ptr(), tensor.nbytes()});
  std::filesystem::remove(path);
  write_safetensors(path, in_file_order(views));
}

TEST_F(Folder, HalfPrecisionAndTheBaseModelsNamesAreTaken) {
  for (const json& config : {gpt2(), llama()}) {
    const Shape shape = read_huggingface_config(written(config));
    auto source = model_of(shape), target = model_of(shape);
    for (const auto& [type, dtype] :
         {std::pair{at::kBFloat16, "BF16"}, std::pair{at::kHalf, "F16"}}) {
      write_weights(
          scratch_.file("model.safetensors"), *source,
          [&, t = type](std::string& name, at::Tensor& tensor) {
            for (const char* body : {"transformer.", "model."})
              if (name.starts_with(body)) name = name.substr(std::strlen(body));
            tensor = (tensor + 0.37).to(t);
            return true;
          },
          dtype);
      load_huggingface(scratch_.path(), *target);
      const auto want = to_huggingface(source->parameters(), 13);
      const auto got = to_huggingface(target->parameters(), 13);
      for (size_t i = 0; i < want.size(); ++i)
        EXPECT_TRUE(at::equal(got[i].tensor, (want[i].tensor + 0.37).to(type).to(at::kFloat)))
            << want[i].name;
    }
  }
}

TEST_F(Folder, WeightsThatDoNotFitAreNamed) {
  const Shape shape = read_huggingface_config(written(llama()));
  auto model = model_of(shape);
  const std::string path = scratch_.file("model.safetensors");
  auto message_of = [&](const std::function<bool(std::string&, at::Tensor&)>& change) {
    write_weights(path, *model, change);
    return refused(Code::kCheckpoint, [&] { load_huggingface(scratch_.path(), *model); });
  };
  auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  const std::string k = "model.layers.0.self_attn.k_proj.weight";
  has(message_of([&](auto& name, auto&) { return name != k; }), "`" + k + "` is missing");
  has(message_of([&](auto& name, auto& tensor) {
        if (name == k) tensor = tensor.t().contiguous();
        return true;
      }),
      "`" + k + "` is [16, 8], and the model takes [8, 16]");
  has(message_of([&](auto& name, auto&) {
        if (name == "model.norm.weight") name = "model.norm.wheight";
        return true;
      }),
      "`model.norm.weight` is missing");
  std::filesystem::remove(path);
  write(scratch_.file("model.safetensors.index.json"),
        R"({"weight_map": {"a": "../elsewhere.safetensors"}})");
  has(refused(Code::kCheckpoint, [&] { load_huggingface(scratch_.path(), *model); }), "elsewhere");
}

TEST_F(Folder, WhatLiesThereInsteadOfWeightsIsNamed) {
  const Shape shape = read_huggingface_config(written(llama()));
  auto model = model_of(shape);
  auto message = [&] {
    return refused(Code::kCheckpoint, [&] { load_huggingface(scratch_.path(), *model); });
  };
  auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  };
  has(message(), "no model.safetensors");
  for (const auto& [name, part] :
       {std::pair{"model-Q4.gguf", "GGUF"}, std::pair{"model.onnx", "ONNX"},
        std::pair{"flax_model.msgpack", "Flax"}, std::pair{"tf_model.h5", "TensorFlow"},
        std::pair{"consolidated.00.pth", "safe_serialization=True"},
        std::pair{"pytorch_model.bin", "safe_serialization=True"},
        std::pair{"model-00001-of-00002.safetensors", "index"},
        std::pair{"adapter_model.safetensors", "merge_and_unload"}}) {
    write(scratch_.file(name), "x");
    has(message(), name);
    has(message(), part);
    std::filesystem::remove(scratch_.file(name));
  }
  write(scratch_.file("model.safetensors.index.json"),
        R"({"weight_map": {"a": "model-00002-of-00002.safetensors"}})");
  has(message(), "model-00002-of-00002.safetensors: the file is missing");
  has(message(), "download it again");
  write(scratch_.file("model.safetensors.index.json"),
        "version https://git-lfs.github.com/spec/v1");
  has(message(), "git lfs pull");
  // weights of another making
  const std::string path = scratch_.file("model.safetensors");
  auto renamed = [&](const std::string& from, const std::string& to) {
    write_weights(path, *model, [&](std::string& name, at::Tensor&) {
      if (name.ends_with(from)) name.replace(name.size() - from.size(), from.size(), to);
      return true;
    });
    return message();
  };
  has(renamed("k_proj.weight", "k_proj.qweight"), "quantized");
  has(renamed("k_proj.weight", "k_proj.lora_A.weight"), "merge_and_unload");
  has(renamed("model.embed_tokens.weight", "bert.embeddings.weight"), "there is `bert.embeddings");
}

TEST_F(Folder, PrefixesOfWrappersAreNoObstacle) {
  for (const json& config : {gpt2(), llama()}) {
    const Shape shape = read_huggingface_config(written(config));
    auto source = model_of(shape), target = model_of(shape);
    for (const std::string prefix : {"_orig_mod.", "module.", "module._orig_mod."}) {
      at::NoGradGuard no_grad;
      for (auto& [name, tensor] : target->parameters()) tensor.zero_();
      write_weights(scratch_.file("model.safetensors"), *source,
                    [&](std::string& name, at::Tensor&) {
                      name = prefix + name;
                      return true;
                    });
      load_huggingface(scratch_.path(), *target);
      const auto want = to_huggingface(source->parameters(), 13);
      const auto got = to_huggingface(target->parameters(), 13);
      for (size_t i = 0; i < want.size(); ++i)
        EXPECT_TRUE(at::equal(got[i].tensor, want[i].tensor)) << prefix << want[i].name;
    }
  }
}

TEST_F(Folder, ATiedHeadThatIsWrittenOutMustBeTheEmbedding) {
  const Shape tied = read_huggingface_config(written(llama()));
  Shape untied = tied;
  untied.tied = false;
  auto source = model_of(untied), target = model_of(tied);
  const std::string path = scratch_.file("model.safetensors");
  const auto keep = [](std::string&, at::Tensor&) { return true; };
  write_weights(path, *source, keep);
  const auto message =
      refused(Code::kCheckpoint, [&] { load_huggingface(scratch_.path(), *target); });
  EXPECT_NE(message.find("`lm_head.weight` is left over"), std::string::npos) << message;
  at::Tensor embedding;
  write_weights(path, *source, [&](std::string& name, at::Tensor& tensor) {
    if (name == "model.embed_tokens.weight") embedding = tensor;
    if (name == "lm_head.weight") tensor = embedding;
    return true;
  });
  EXPECT_NO_THROW(load_huggingface(scratch_.path(), *target));
}

}  // namespace
}  // namespace lehr::artefact
