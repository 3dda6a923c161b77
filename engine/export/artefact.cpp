#include "engine/export/artefact.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/export/golden.h"
#include "engine/export/layout.h"
#include "engine/export/manifest.h"
#include "engine/export/scan.h"
#include "engine/export/trace.h"

namespace lehr::artefact {

using Json = nlohmann::ordered_json;

struct Artefact::State {
  std::string path, manifest, recipe, statistics, loss, tokenizer;
  StringList classes, number_columns, string_columns;
  bool takes_images = false, takes_text = false;
  int64_t context = 0, vocabulary = 0;
  std::vector<int64_t> image_shape;  // [H, W] or [H, W, C]
  std::unique_ptr<Script> script;
};

namespace {

// the bytes that were hashed are the bytes that are used: a file may be swapped between two reads
std::string read_verified(const std::string& folder, const Manifest& manifest,
                          const std::string& name) {
  const std::string path = join_path(folder, name);
  for (const auto& file : manifest.files)
    if (file.name == name) {
      std::string bytes = read_file(path, file.bytes);
      if (sha256(bytes) != file.sha256)
        throw Error(Code::kCheckpoint, "damaged: its SHA-256 is not the manifest's", path,
                    "copy the artefact again");
      return bytes;
    }
  throw Error(Code::kCheckpoint, "is not in the manifest", path, "export the model again");
}

bool has_file(const Manifest& manifest, const std::string& name) {
  return std::any_of(manifest.files.begin(), manifest.files.end(),
                     [&](const FileRecord& f) { return f.name == name; });
}

}  // namespace

Artefact::Artefact(const std::string& path) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  const Manifest manifest = verify_folder(path);
  const std::string model = has_file(manifest, kTritonModelName) ? kTritonModelName : kModelName;
  const std::string model_path = join_path(path, model);
  try {
    const Json facts = Json::parse(manifest.facts);
    s.manifest = read_file(join_path(path, kManifestName));
    s.recipe = read_verified(path, manifest, kRecipeName);
    s.statistics = read_verified(path, manifest, kStatisticsName);
    s.loss = facts.at("loss").get<std::string>();
    const Json& input = facts.at("signature").at("inputs").at(0);
    s.takes_images = input.at("name") == "images";
    s.takes_text = input.at("name") == "tokens";
    if (s.takes_text) {
      if (has_file(manifest, kTokenizerName))
        s.tokenizer = read_verified(path, manifest, kTokenizerName);
      s.context = facts.at("context").get<int64_t>();
      s.vocabulary = facts.at("vocabulary").get<int64_t>();
    }
    if (s.takes_images)
      for (size_t d = 1; d < input.at("shape").size(); ++d)
        s.image_shape.push_back(input["shape"][d].get<int64_t>());
    const std::string archive = read_verified(path, manifest, model);
    scan_archive(archive, model_path);
    s.script = std::make_unique<Script>(load_script(archive));
    scan_operators(s.script->operators(), model_path);
    s.classes = s.script->string_list("classes");
    s.number_columns = s.script->string_list("number_columns");
    s.string_columns = s.script->string_list("string_columns");
  } catch (const Error&) {
    throw;
  } catch (const Json::exception& e) {
    throw Error(Code::kCheckpoint, fmt::format("its facts are incomplete: {}", e.what()),
                join_path(path, kManifestName), "export the model again");
  } catch (const std::exception& e) {
    throw Error(Code::kCheckpoint, "LibTorch cannot load it: " + problem_of(e), model_path,
                "export the model again");
  }
}

Artefact::~Artefact() = default;

const std::vector<std::string>& Artefact::classes() const { return state_->classes; }
bool Artefact::takes_images() const { return state_->takes_images; }
const std::vector<int64_t>& Artefact::image_shape() const { return state_->image_shape; }
bool Artefact::takes_text() const { return state_->takes_text; }
int64_t Artefact::context() const { return state_->context; }
std::string Artefact::tokenizer() const { return state_->tokenizer; }
StringList Artefact::number_columns() const { return state_->number_columns; }
StringList Artefact::string_columns() const { return state_->string_columns; }
std::string Artefact::manifest() const { return state_->manifest; }
std::string Artefact::recipe() const { return state_->recipe; }
std::string Artefact::loss() const { return state_->loss; }
std::string Artefact::statistics() const { return state_->statistics; }

namespace {

Error not_taken(const std::string& what, const std::string& path) {
  return Error(Code::kData, "the model does not take this input: " + what, path,
               "lehr inspect shows what it takes");
}

// forward looks at its inputs itself; shapes are looked at here too, since that of release 0.1 does
// not
std::vector<at::Tensor> answer(const Script& script, const data::RawBatch& raw,
                               const std::string& path) {
  try {
    return script.forward(raw);
  } catch (const std::exception& e) {  // the interpreter's are no c10::Error
    throw not_taken(problem_of(e), path);
  }
}

void check_tokens(const at::Tensor& tokens, bool takes_text, const std::string& path) {
  if (!takes_text) throw not_taken("it is no language model", path);
  if (!tokens.defined() || tokens.scalar_type() != at::kLong || tokens.dim() != 2)
    throw not_taken("it takes tokens int64 [N, T]", path);
}

// what is read from memory after this has the form that facts and classes promise
void check_answers(bool holds, const std::string& path) {
  if (!holds)
    throw Error(Code::kCheckpoint, "its answers have another form than its manifest says", path,
                "export the model again");
}

}  // namespace

Prediction Artefact::predict(const data::RawBatch& raw) const {
  const State& s = *state_;
  if (s.takes_text)
    throw not_taken("a language model answers through logits() and generate()", s.path);
  int64_t rows = 0;
  if (s.takes_images) {
    if (!raw.images.defined() || raw.images.scalar_type() != at::kByte)
      throw not_taken("it takes uint8 images", s.path);
    if (raw.images.dim() == 0 || raw.images.sizes().slice(1) != at::IntArrayRef(s.image_shape))
      throw not_taken(fmt::format("images of [N, {}], not [{}]", fmt::join(s.image_shape, ", "),
                                  fmt::join(raw.images.sizes(), ", ")),
                      s.path);
    rows = raw.images.size(0);
  } else {
    rows = raw.numbers.defined() && raw.numbers.dim() == 2 ? raw.numbers.size(0) : -1;
    if (rows < 0 || raw.numbers.scalar_type() != at::kDouble ||
        raw.numbers.size(1) != int64_t(s.number_columns.size()))
      throw not_taken(fmt::format("it takes float64 numbers [N, {}]", s.number_columns.size()),
                      s.path);
    if (int64_t(raw.strings.size()) != rows)
      throw not_taken(
          fmt::format("{} rows of strings beside {} rows of numbers", raw.strings.size(), rows),
          s.path);
  }
  const std::vector<at::Tensor> outputs = answer(*s.script, raw, s.path);
  const int64_t classes = s.classes.size();
  check_answers(outputs.size() == (classes > 0 ? 2 : 1), s.path);
  Prediction prediction;
  prediction.scores = outputs.back();
  check_answers(prediction.scores.scalar_type() == at::kFloat && prediction.scores.dim() == 2 &&
                    prediction.scores.size(0) == rows &&
                    (classes == 0 || prediction.scores.size(1) == classes),
                s.path);
  if (classes == 0) return prediction;
  const at::Tensor labels = outputs.front().contiguous();
  check_answers(labels.scalar_type() == at::kLong && labels.sizes() == at::IntArrayRef({rows}),
                s.path);
  const int64_t* label = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows; ++i) {
    check_answers(label[i] >= 0 && label[i] < classes, s.path);
    prediction.labels.push_back(s.classes[label[i]]);
  }
  return prediction;
}

at::Tensor Artefact::logits(const at::Tensor& tokens) const {
  const State& s = *state_;
  check_tokens(tokens, s.takes_text, s.path);
  data::RawBatch raw;
  raw.tokens = tokens;
  const std::vector<at::Tensor> outputs = answer(*s.script, raw, s.path);
  check_answers(
      outputs.size() == 1 && outputs[0].scalar_type() == at::kFloat &&
          outputs[0].sizes() == at::IntArrayRef({tokens.size(0), tokens.size(1), s.vocabulary}),
      s.path);
  return outputs[0];
}

at::Tensor Artefact::generate(const at::Tensor& tokens, int64_t new_tokens,
                              const Sampling& sampling) const {
  const State& s = *state_;
  check_tokens(tokens, s.takes_text, s.path);
  check(sampling);
  at::Tensor text;
  try {
    text = s.script->generate(tokens, new_tokens, sampling);
  } catch (const std::exception& e) {
    throw not_taken(problem_of(e), s.path);
  }
  check_answers(text.scalar_type() == at::kLong &&
                    text.sizes() == at::IntArrayRef({tokens.size(0), tokens.size(1) + new_tokens}),
                s.path);
  return text;
}

double Artefact::replay_golden() const {
  return replay(*state_->script, read_golden(join_path(state_->path, kGoldenName)));
}

Section ExportFields::section() {
  Declare<ExportFields> d("export", "The artefact that a finished run ends with.");
  d.field("enabled", &ExportFields::enabled,
          "Write artefact/ into the run folder at the end of training.")
      .free_to_change();
  d.field(
       "weights", &ExportFields::weights,
       "Which weights it holds: of the best validation, of the last step, or their moving average.")
      .choices({"best", "last", "ema"})
      .synonyms({"load_best_model_at_end"})
      .free_to_change();
  d.field("layout", &ExportFields::layout,
          "How its files lie: plain, or as a model of a Triton model repository (images only).")
      .choices({"plain", "triton"})
      .free_to_change();
  return d.section();
}

std::vector<Section> sections() { return {ExportFields::section()}; }

}  // namespace lehr::artefact
