// Token streams cut into windows of `context` tokens, each with the token after it as the target:
// what the sources text and tokens share. Training windows are shifted anew in every epoch, so
// that no border stays where it is; evaluation windows tile their stream and lose nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/data/token_file.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {

// Tokens that lie in one or several pieces of memory, end to end, with the documents in them.
class TokenStream {
 public:
  // The ids of a shard that is mapped.
  void add(const TokenShard& shard);
  // a copy, in as few bytes as the vocabulary needs; `documents`: where they begin, ascending
  void add(const Tokens& ids, int64_t vocabulary, const std::vector<int64_t>& documents);
  int64_t size() const { return size_; }
  // Throws Error{kData} naming the shard where an id is not below its vocabulary.
  void read(int64_t begin, int64_t count, int64_t* out) const;
  // Windows of it will be read here and there, and memory does not hold all of it.
  void read_sparsely();
  int64_t documents() const { return documents_; }
  // The number of the document that holds this token: the last that begins at it or before.
  int64_t document_of(int64_t token) const;
  // Where documents begin in [begin, end). Throws Error{kData} naming the shard for a table of
  // documents that makes no sense.
  std::vector<int64_t> documents_in(int64_t begin, int64_t end) const;
  // the tokens [begin, end) of this stream
  TokenStream part(int64_t begin, int64_t end) const;

 private:
  struct Piece {
    std::shared_ptr<const void> owner;
    const void* data;
    int bytes;
    int64_t begin, count;  // within the stream
    int64_t vocabulary;
    std::string path;
    std::span<const int64_t> documents;  // where they begin, counted from the shard's first token
    int64_t first = 0;                   // of the shard
    int64_t documents_before = 0;        // in the pieces before
  };
  void add(Piece piece);
  std::vector<Piece>::const_iterator piece_at(int64_t token) const;
  std::vector<Piece> pieces_;
  int64_t size_ = 0, documents_ = 0;
  bool sparse_ = false;
};

// Windows of training from a stream of `tokens`: all of them fit at every shift in [0, shifts).
struct TrainingWindows {
  int64_t count = 0, shifts = 1;
  TrainingWindows() = default;
  TrainingWindows(int64_t tokens, int64_t context);
};
// Windows of evaluation: the last one may be short.
int64_t evaluation_windows(int64_t tokens, int64_t context);

// Where the window of a sample begins.
struct WindowPlace {
  const TokenStream* stream;
  int64_t begin;
};

// Streams whose windows of evaluation come one after the other.
class EvaluationStreams {
 public:
  void add(TokenStream stream, int64_t context);
  int64_t windows() const { return ends_.back(); }
  WindowPlace at(int64_t window) const;

 private:
  std::vector<std::unique_ptr<const TokenStream>> streams_;
  std::vector<int64_t> ends_ = {0};  // windows up to each of them
  int64_t context_ = 1;
};

// What statistics() says of one split.
struct SplitFigures {
  int64_t tokens = 0, documents = 0;
  uint64_t text_bytes = 0;
  void add(const SplitFigures& other);
};

class WindowDataset : public Dataset {
 public:
  const DataInfo& info() const final { return info_; }
  Batch allocate(int64_t size) const final;
  void fill(Split split, const int64_t* samples, int64_t begin, int64_t end, bool augment,
            uint64_t seed, int64_t epoch, Batch& batch) const final;
  RawBatch raw(Split split, const std::vector<int64_t>& samples) const final;
  Preprocessing preprocessing() const final;
  // {"kind": "text", "tokens": {"train": ...}, ..., "unigram_entropy": nats per training token}
  std::string statistics() const final;
  StringList remarks() const final { return remarks_; }

 protected:
  virtual WindowPlace place(Split split, int64_t sample, bool augment, uint64_t seed,
                            int64_t epoch) const = 0;
  // How often each id stands in the training tokens: asked for by an export, not by a start.
  virtual std::vector<int64_t> counts() const = 0;
  // Fills in what follows from the tokenizer; nullptr where it is not known.
  void set_tokenizer(const Tokenizer* tokenizer);

  // is_text, vocabulary, context, tokenizer, layout, fingerprint: the source's to fill in
  DataInfo info_;
  bool document_mask_ = false;
  SplitFigures figures_[3];
  StringList remarks_;
};

// Adds `by` for each token of the stream to the count of its id.
void count_tokens(const TokenStream& stream, int64_t by, std::vector<int64_t>& counts);

std::shared_ptr<Dataset> open_text(const FieldSource& fields);
std::shared_ptr<Dataset> open_tokens(const FieldSource& fields);

}  // namespace lehr::data
