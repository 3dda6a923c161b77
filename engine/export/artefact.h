// Turns a trained model into a directory that a server can trust, and loads one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/base/fields.h"
#include "engine/data/dataset.h"
#include "engine/export/sampling.h"
#include "models/model.h"

namespace lehr::artefact {

struct ExportRequest {
  std::shared_ptr<models::Model> model;  // weights already chosen (best, last or ema), on the CPU
  std::shared_ptr<data::Dataset> dataset;
  std::string loss;              // "cross_entropy", "binary_cross_entropy", "mse", ...
  std::string recipe_yaml;       // resolved
  std::string metrics_json;      // what the run reached
  std::string output;            // folder; must not exist
  std::string origin_json;       // run, step, build: into the manifest
  std::string layout = "plain";  // "triton": model.pt in 1/, and config.pbtxt (images only)
};
// Traces, wraps, writes under a temporary name, reloads, compares with the live model at three
// batch sizes bit for bit, replays the golden samples, and only then renames into place. Throws
// Error{kCheckpoint} naming the first differing layer; nothing is published then.
void export_artefact(const ExportRequest& request);
// True when the model would trace: a dry trace with the weights that it has, on random inputs,
// compared at other batch sizes. `why` says what stops it.
bool exports(const std::shared_ptr<models::Model>& model, const data::DataInfo& info,
             std::string* why);

struct Prediction {
  std::vector<std::string> labels;  // classifiers, [N]
  at::Tensor scores;                // [N, C] probabilities or [N, K] values
};

// A verified artefact: manifest checked (sizes, checksums), extents of tensors, source and
// operators of model.pt checked before anything runs. Throws Error{kCheckpoint}.
class Artefact {
 public:
  explicit Artefact(const std::string& path);
  ~Artefact();
  const std::vector<std::string>& classes() const;
  bool takes_images() const;
  bool takes_text() const;
  const std::vector<int64_t>& image_shape() const;  // [H, W] or [H, W, C]; empty for tables
  StringList number_columns() const;
  StringList string_columns() const;
  // Any N >= 0; images as stored, tables in the order of the columns above. Throws Error{kData}
  // when they are not what FORMAT.md says, Error{kCheckpoint} when the answers are not. May be
  // called from several threads.
  Prediction predict(const data::RawBatch& raw) const;
  // Of a language model: tokens int64 [N, T] -> logits float32 [N, T, V], T <= what it was made
  // for. Throws Error{kData} as predict does.
  at::Tensor logits(const at::Tensor& tokens) const;
  // The same tokens and `new_tokens` more, [N, T + new_tokens]; see Sampling.
  at::Tensor generate(const at::Tensor& tokens, int64_t new_tokens, const Sampling& sampling) const;
  int64_t context() const;        // tokens that generate looks back
  std::string tokenizer() const;  // its tokenizer.json; "": it has none
  // How well the golden samples are answered here: 0 the same bits, <= 1 within their tolerance.
  double replay_golden() const;
  std::string manifest() const;    // JSON text
  std::string recipe() const;      // YAML text
  std::string loss() const;        // of the recipe that trained it
  std::string statistics() const;  // of the training data, JSON text

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What an artefact is and holds, for a person and as a JSON object. Verifies it first.
struct Description {
  std::string text, json;
};
Description describe(const std::string& path);

struct ExportFields {
  bool enabled = true;
  std::string weights = "best";  // best | last | ema
  std::string layout = "plain";  // plain | triton
  static Section section();
};
std::vector<Section> sections();  // export

}  // namespace lehr::artefact
