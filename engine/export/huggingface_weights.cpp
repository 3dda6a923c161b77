// Weights under the names and in the pieces that Hugging Face gives them.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/host_bytes.h"
#include "engine/base/log.h"
#include "engine/base/random.h"
#include "engine/base/safetensors.h"
#include "engine/base/what_is.h"
#include "engine/data/bpe.h"
#include "engine/export/huggingface.h"
#include "engine/export/layout.h"
#include "engine/export/publish.h"

namespace lehr::artefact {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kIndexLimit = 256 << 20;
constexpr const char* kQuantized =
    "quantized weights (FP8, AWQ, GPTQ, bitsandbytes) are not read; take the original ones";
constexpr const char* kIndexName = "model.safetensors.index.json";

bool has_vocabulary_rows(const std::string& name) {
  return name == "transformer.wte.weight" || name == "model.embed_tokens.weight" ||
         name == "lm_head.weight";
}

// A part of one of our parameters: rows of it, by their name over there.
struct Piece {
  std::string name;
  int64_t begin, rows;  // rows 0: the whole tensor
};

// `sizes`: of all our parameters, which tell the heads of a layer apart
std::vector<Piece> pieces_of(const std::string& name, const std::map<std::string, int64_t>& columns,
                             int64_t rows) {
  auto replaced = [&](const std::string& part, const std::string& by) {
    std::string other = name;
    return other.replace(other.rfind(part), part.size(), by);
  };
  if (name.ends_with(".qkv_proj.weight")) {
    const int64_t q = columns.at(replaced("qkv_proj", "o_proj")), kv = (rows - q) / 2;
    return {{replaced("qkv_proj", "q_proj"), 0, q},
            {replaced("qkv_proj", "k_proj"), q, kv},
            {replaced("qkv_proj", "v_proj"), q + kv, kv}};
  }
  if (name.ends_with(".gate_up_proj.weight"))
    return {{replaced("gate_up_proj", "gate_proj"), 0, rows / 2},
            {replaced("gate_up_proj", "up_proj"), rows / 2, rows / 2}};
  return {{name, 0, 0}};
}

std::map<std::string, int64_t> columns_of(const NamedTensors& parameters) {
  std::map<std::string, int64_t> columns;
  for (const auto& [name, tensor] : parameters) columns[name] = tensor.size(-1);
  return columns;
}

// What lies in a folder instead of model.safetensors, and what to do; nullopt: nothing that is
// known.
std::optional<Error> other_weights(const std::string& folder) {
  struct Other {
    const char *ending, *what, *remedy;
  };
  const char* const kSave =
      "load it elsewhere and save_pretrained(folder, safe_serialization=True)";
  const Other others[] = {
      {"adapter_model.safetensors", "an adapter (PEFT), not a model",
       "merge it into its base elsewhere (merge_and_unload) and save_pretrained the whole"},
      {".safetensors", "a part, but not the index that names all of them",
       "download the folder again, model.safetensors.index.json included"},
      {".bin", "pickled weights, which are not read", kSave},
      {".pt", "pickled weights, which are not read", kSave},
      {".pth", "pickled weights, which are not read", kSave},
      {".gguf", "a GGUF file, which is not read", "take the folder that it was converted from"},
      {".onnx", "an ONNX file, which is not read", "take the folder that it was converted from"},
      {".msgpack", "weights for Flax, which are not read", kSave},
      {".h5", "weights for TensorFlow, which are not read", kSave}};
  const StringList names = list_folder(folder);
  for (const Other& other : others)
    for (const auto& name : names)
      if (name.ends_with(other.ending))
        return Error(Code::kCheckpoint,
                     fmt::format("there is no {} here; `{}` is {}", kWeightsName, name, other.what),
                     folder, other.remedy);
  return std::nullopt;
}

Error no_weights(const std::string& folder) {
  return other_weights(folder).value_or(Error(Code::kCheckpoint,
                                              fmt::format("there is no {} here", kWeightsName),
                                              folder, "name a folder that save_pretrained wrote"));
}

// All tensors of a folder by name, in one file or several.
class Weights {
 public:
  explicit Weights(const std::string& folder) : folder_(folder) {
    const std::string one = join_path(folder, kWeightsName);
    if (file_exists(one)) {
      add(one, nullptr);
      return;
    }
    const std::string index = join_path(folder, kIndexName);
    if (!file_exists(index)) throw no_weights(folder);
    const std::string text = read_file(index, kIndexLimit);
    const Json json = Json::parse(plain_text(text, index, Code::kCheckpoint), nullptr, false);
    std::map<std::string, std::set<std::string>> files;
    try {
      for (const auto& [tensor, file] : json.at("weight_map").items())
        files[file.get<std::string>()].insert(tensor);
    } catch (const Json::exception&) {
      throw Error(Code::kCheckpoint, "holds no weight_map", index, "download it again");
    }
    for (const auto& [file, tensors] : files) {
      if (file.find('/') != std::string::npos || !file.ends_with(".safetensors"))
        throw Error(Code::kCheckpoint, fmt::format("names `{}`, which is no file beside it", file),
                    index, "download it again");
      if (!file_exists(join_path(folder, file)))
        throw Error(Code::kCheckpoint,
                    fmt::format("the file is missing, and {} names it", kIndexName),
                    join_path(folder, file), "download it again");
      add(join_path(folder, file), &tensors);
    }
  }

  const std::map<std::string, const TensorView*>& all() const { return all_; }
  // where they are not what the model needs
  const char* remedy() const {
    for (const auto& [name, view] : all_) {
      for (const char* ending : {".qweight", ".weight_scale", ".weight_scale_inv", ".absmax"})
        if (name.ends_with(ending)) return kQuantized;
      if (name.find(".lora_A.") != name.npos)
        return "an adapter is in it: merge it elsewhere (merge_and_unload) and save the whole";
    }
    return "the weights and config.json do not belong together";
  }

  // float32, a copy
  at::Tensor tensor(const TensorView& view) const {
    static const std::map<std::string, at::ScalarType> kTypes = {
        {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"F64", at::kDouble}};
    auto type = kTypes.find(view.dtype);
    if (type == kTypes.end())
      throw Error(Code::kCheckpoint,
                  fmt::format("the tensor `{}` is {}, not F32, BF16 or F16", view.name, view.dtype),
                  folder_, kQuantized);
    at::Tensor out = at::empty(view.shape, type->second);
    if (view.bytes > 0) std::memcpy(out.data_ptr(), view.data, view.bytes);
    return out.to(at::kFloat);
  }

 private:
  void add(const std::string& path, const std::set<std::string>* wanted) {
    files_.push_back(std::make_unique<SafetensorsFile>(path));
    SafetensorsFile& file = *files_.back();
    if (wanted)
      for (const auto& name : *wanted)
        if (!file.find(name))
          throw Error(Code::kCheckpoint, fmt::format("the tensor `{}` is missing", name), path,
                      "download it again");
    std::vector<bool> is_wanted;
    for (const TensorView& view : file.tensors())
      is_wanted.push_back(!wanted || wanted->count(view.name));
    if (const std::string wrapper = file.strip_wrappers(); !wrapper.empty())
      log_info(fmt::format("{}: names are taken without `{}`", path, wrapper));
    for (size_t i = 0; i < is_wanted.size(); ++i)
      if (is_wanted[i]) all_[file.tensors()[i].name] = &file.tensors()[i];
  }
  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const TensorView*> all_;
};

// masks and frequencies that older releases saved beside the weights
bool is_no_weight(const std::string& name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
         name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

std::optional<Error> foreign_folder(const std::string& folder) {
  if (file_exists(join_path(folder, kWeightsName)) || file_exists(join_path(folder, kIndexName)))
    return Error(Code::kCheckpoint, "there are weights here, but no config.json", folder,
                 "download it too: it says what the weights are of");
  return other_weights(folder);
}

NamedTensors to_huggingface(const NamedTensors& parameters, int64_t vocabulary) {
  const auto columns = columns_of(parameters);
  NamedTensors out;
  for (const auto& [name, tensor] : parameters) {
    const at::Tensor whole = tensor.detach();
    for (const Piece& piece : pieces_of(name, columns, whole.size(0))) {
      at::Tensor part = piece.rows ? whole.narrow(0, piece.begin, piece.rows) : whole;
      if (has_vocabulary_rows(name)) part = part.narrow(0, 0, vocabulary);
      out.push_back({piece.name, part.contiguous()});
    }
  }
  return out;
}

void load_huggingface(const std::string& folder, models::LanguageModel& model) {
  at::NoGradGuard no_grad;
  const Weights weights(folder);
  auto refuse = [&](const std::string& what) {
    return Error(Code::kCheckpoint, what, folder, weights.remedy());
  };
  // the base model's files lack the name of the body
  const NamedTensors parameters = model.parameters();
  auto find = [&](const std::string& name) -> const TensorView* {
    auto found = weights.all().find(name);
    for (const char* body : {"transformer.", "model."})
      if (found == weights.all().end() && name.starts_with(body))
        found = weights.all().find(name.substr(std::strlen(body)));
    return found == weights.all().end() ? nullptr : found->second;
  };
  const auto columns = columns_of(parameters);
  std::set<std::string> used;
  at::Tensor embedding;
  for (const auto& [name, tensor] : parameters) {
    const at::Tensor own =
        has_vocabulary_rows(name) ? tensor.narrow(0, 0, model.vocabulary()) : tensor;
    for (const Piece& piece : pieces_of(name, columns, own.size(0))) {
      const TensorView* view = find(piece.name);
      if (!view)
        throw refuse(fmt::format(
            "the tensor `{}` is missing{}", piece.name,
            weights.all().empty() ? ""
                                  : fmt::format("; there is `{}`", weights.all().begin()->first)));
      used.insert(view->name);
      const at::Tensor target = piece.rows ? own.narrow(0, piece.begin, piece.rows) : own;
      if (target.sizes() != at::IntArrayRef(view->shape))
        throw refuse(fmt::format("the tensor `{}` is [{}], and the model takes [{}]", view->name,
                                 fmt::join(view->shape, ", "), fmt::join(target.sizes(), ", ")));
      target.copy_(weights.tensor(*view));
      if (has_vocabulary_rows(name) && !embedding.defined()) embedding = target;
    }
  }
  for (const auto& [name, view] : weights.all()) {
    if (used.count(name) || is_no_weight(name)) continue;
    // a tied head may be written out
    if (name == "lm_head.weight" && at::IntArrayRef(view->shape) == embedding.sizes() &&
        at::equal(weights.tensor(*view), embedding.to(at::kCPU)))
      continue;
    throw refuse(fmt::format("the tensor `{}` is left over", name));
  }
}

void export_huggingface(const FieldSource& fields, const models::LanguageModel& model,
                        const std::string& tokenizer, const std::string& output) {
  const Shape shape = shape_of(fields, model);
  std::shared_ptr<const data::Tokenizer> parsed;
  if (!tokenizer.empty()) parsed = data::parse_tokenizer(tokenizer, output);
  std::string tokenizer_json;
  if (parsed && parsed->kind() == "bpe") tokenizer_json = parsed->json();
  if (parsed && parsed->kind() == "byte")
    tokenizer_json = data::write_bpe(data::byte_parts(parsed->end_of_text().has_value()));
  if (tokenizer_json.empty())
    log_warning(parsed ? "transformers has no tokenizer of characters: none is written"
                       : "the model has no tokenizer: none is written");
  const NamedTensors tensors = to_huggingface(model.parameters(), model.vocabulary());
  publish_folder(output, [&](const std::string& folder) {
    for (const auto& [name, tensor] : tensors)
      if (tensor.scalar_type() != at::kFloat)
        throw Error(Code::kInternal, fmt::format("the weight `{}` is not float32", name));
    const HostViews weights(tensors);
    const std::string path = join_path(folder, kWeightsName);
    write_safetensors(path, in_file_order(weights.views()), {{"format", "pt"}});
    write_bytes(join_path(folder, "config.json"), huggingface_config(shape, parsed.get()));
    if (parsed)
      write_bytes(join_path(folder, "generation_config.json"),
                  huggingface_generation(shape, *parsed));
    if (!tokenizer_json.empty()) {
      write_bytes(join_path(folder, kTokenizerName), tokenizer_json);
      write_bytes(join_path(folder, "tokenizer_config.json"),
                  huggingface_tokenizer(shape, *parsed));
    }
    // what lies there is the model
    check_shape(shape, read_huggingface_config(folder), output);
    const SafetensorsFile file(path);
    for (const TensorView& view : weights.views()) {
      const TensorView* stored = file.find(view.name);
      if (!stored || stored->shape != view.shape ||
          std::memcmp(stored->data, view.data, view.bytes) != 0)
        throw Error(Code::kCheckpoint,
                    fmt::format("nothing was published: `{}` was not written as it is", view.name),
                    output);
    }
  });
}

namespace {

class RandomText : public data::Dataset {
 public:
  RandomText(const Shape& shape, const std::string& tokenizer) {
    info_.is_text = true;
    info_.vocabulary = shape.vocabulary;
    info_.context = shape.positions;
    info_.tokenizer = tokenizer;
    info_.layout = data::TextLayout{};
  }
  const data::DataInfo& info() const override { return info_; }
  int64_t size(data::Split split) const override { return split == data::Split::kTest ? 64 : 0; }
  Batch allocate(int64_t size) const override {
    Batch batch;
    batch.inputs = at::empty({size, info_.context}, at::kLong);
    batch.samples.resize(static_cast<size_t>(size));
    return batch;
  }
  void fill(data::Split, const int64_t* samples, int64_t begin, int64_t end, bool, uint64_t,
            int64_t, Batch& batch) const override {
    for (int64_t i = begin; i < end; ++i) {
      Random random(0, Stream::kGenerate, static_cast<uint64_t>(samples[i]));
      int64_t* ids = batch.inputs.data_ptr<int64_t>() + i * info_.context;
      for (int64_t t = 0; t < info_.context; ++t)
        ids[t] = random.below(static_cast<uint32_t>(info_.vocabulary));
    }
  }
  data::RawBatch raw(data::Split split, const std::vector<int64_t>& samples) const override {
    const auto n = static_cast<int64_t>(samples.size());
    Batch batch = allocate(n);
    fill(split, samples.data(), 0, n, false, 0, 0, batch);
    data::RawBatch raw;
    raw.tokens = batch.inputs;
    return raw;
  }
  data::Preprocessing preprocessing() const override {
    data::Preprocessing p;
    p.source = "\ndef preprocess(self, tokens: Tensor) -> Tensor:\n    return tokens\n";
    return p;
  }
  std::string statistics() const override { return "{}\n"; }

 private:
  data::DataInfo info_;
};

}  // namespace

std::shared_ptr<data::Dataset> random_text(const Shape& shape, const std::string& tokenizer) {
  return std::make_shared<RandomText>(shape, tokenizer);
}

}  // namespace lehr::artefact
