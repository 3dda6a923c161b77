// A data set: three splits of samples, read once, handed out by index. What is fitted on training
// data (normalisation, categories) belongs to it and travels with the model as a TorchScript
// source.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/batch.h"
#include "engine/base/fields.h"
#include "engine/data/documents.h"

namespace lehr::data {

enum class Split { kTrain, kValidation, kTest };
const char* to_string(Split split);  // "train", "validation", "test"

struct DataInfo {
  bool is_image = false;
  int64_t channels = 0, height = 0, width = 0;  // images, as the model sees them
  int64_t resize = 0;  // picture files: shorter side before the centre crop to height x width
  StringList number_columns, string_columns;  // tables, as the source stores them
  int64_t features = 0;                       // tables, as the model sees them: the numbers first
  bool is_text = false;                       // token ids in, the next token as the target
  int64_t vocabulary = 0, context = 0;        // text: ids are below vocabulary; tokens per sample
  std::string tokenizer;                      // text: its tokenizer.json; "": not known
  // text: int64 [vocabulary], how many bytes of text each token stands for (0: special); undefined
  // where the tokenizer is not known. Bits per byte are the nats of all predicted tokens, by ln 2,
  // by the bytes of these tokens.
  at::Tensor token_bytes;
  std::optional<TextLayout> layout;  // text: how a file of it is read; nullopt: not known
  StringList classes;                // empty: regression or text
  int64_t values = 0;                // regression: targets per sample
  std::string fingerprint;           // of the source files: part of what exactness depends on
};

// What the source stored, before any preprocessing: the input of an artefact's forward.
struct RawBatch {
  at::Tensor images;                              // uint8 [N, H, W] or [N, H, W, C]
  at::Tensor numbers;                             // float64 [N, F], missing as NaN
  std::vector<std::vector<std::string>> strings;  // [N][S], missing as ""
  at::Tensor tokens;                              // text: int64 [N, T]
  at::Tensor targets;                             // as in Batch
};

// Preprocessing as TorchScript, so that an artefact takes raw values. `source` defines
//   def preprocess(self, images: Tensor) -> Tensor        (images),
//   def preprocess(self, numbers: Tensor, strings: List[List[str]]) -> Tensor   (tables), or
//   def preprocess(self, tokens: Tensor) -> Tensor        (text: as they are)
// using ATen ops only and the attributes below; its result has the bits of Batch::inputs in eval.
struct Preprocessing {
  std::string source;
  std::vector<std::pair<std::string, at::Tensor>> buffers;
  std::vector<std::pair<std::string, StringList>> string_lists;
  std::vector<std::pair<std::string, std::map<std::string, int64_t>>>
      string_maps;  // Dict[str, int]
};

constexpr int64_t kLeftOut = -1;

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual const DataInfo& info() const = 0;
  virtual int64_t size(Split split) const = 0;
  // True: training samples are numbered in the order of training (fill() knows seed and epoch), and
  // the loader must not shuffle them again.
  virtual bool is_ordered() const { return false; }
  // Inputs and targets of samples[i] (an index within the split) into slot i of a batch that
  // `allocate` made, for i in [begin, end); called from several threads at once for disjoint
  // ranges. With `augment`, draws are keyed by (seed, sample, epoch). Under `data.bad_samples:
  // skip` batch.samples[i] becomes kLeftOut where the sample is bad, and its slot holds nothing.
  virtual Batch allocate(int64_t size) const = 0;
  virtual void fill(Split split, const int64_t* samples, int64_t begin, int64_t end, bool augment,
                    uint64_t seed, int64_t epoch, Batch& batch) const = 0;
  virtual RawBatch raw(Split split, const std::vector<int64_t>& samples) const = 0;
  virtual Preprocessing preprocessing() const = 0;
  // Figures of the training data (per column or channel: mean, std, min, max, counts, missing;
  // classes) as JSON text: statistics.json of the artefact.
  virtual std::string statistics() const = 0;
  // What was found, guessed and left out, a line each, for a person: `lehr check` and the start of
  // a training print them.
  virtual StringList remarks() const { return {}; }
  // The bad samples that have come up so far: file and reason of each, in the order of the splits.
  virtual StringList left_out() const { return {}; }
};

// Throws Error{kData} when more than `most` (data.max_bad_samples) samples of `what` are bad.
void check_bad_samples(int64_t bad, int64_t most, const std::string& what);

// Opens what section `data` names. Throws Error{kData} (missing, short or corrupt file: file and
// byte; a missing data set names the scripts/data command) or Error{kRecipe} (unknown column, ...).
std::shared_ptr<Dataset> open_dataset(const FieldSource& fields);

// All sections of this room (section `data`, one per source).
std::vector<Section> sections();

}  // namespace lehr::data
