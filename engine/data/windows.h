// Token streams cut into windows of `context` tokens, each with the token after it as the target:
// what the sources text and tokens share. Training windows are shifted anew in every epoch, so
// that no border stays where it is; evaluation windows tile their stream and lose nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {

// Tokens that lie in one or several pieces of memory, end to end, with the documents in them.
class TokenStream {
 public:
  // `data`: `count` ids of 2 or 4 bytes; `owner` keeps it alive. `documents`: where documents
  // begin in it, ascending; one that began in the piece before is not among them.
  void add(std::shared_ptr<const void> owner, const void* data, int bytes, int64_t count,
           const std::vector<int64_t>& documents);
  // a copy, in as few bytes as the vocabulary needs
  void add(const Tokens& ids, int64_t vocabulary, const std::vector<int64_t>& documents);
  int64_t size() const { return size_; }
  void read(int64_t begin, int64_t count, int64_t* out) const;
  const std::vector<int64_t>& documents() const { return documents_; }
  // the number of the document that holds this token
  int64_t document_of(int64_t token) const;
  // the tokens [begin, end) of this stream
  TokenStream part(int64_t begin, int64_t end) const;

 private:
  struct Piece {
    std::shared_ptr<const void> owner;
    const void* data;
    int bytes;
    int64_t begin, count;  // within the stream
  };
  std::vector<Piece> pieces_;
  std::vector<int64_t> documents_;
  int64_t size_ = 0;
};

// Windows of training from a stream of `tokens`: all of them fit at every shift in [0, shifts).
struct TrainingWindows {
  int64_t count = 0, shifts = 1;
  TrainingWindows() = default;
  TrainingWindows(int64_t tokens, int64_t context);
};
// Windows of evaluation: the last one may be short.
int64_t evaluation_windows(int64_t tokens, int64_t context);

class WindowDataset : public Dataset {
 public:
  const DataInfo& info() const final { return info_; }
  Batch allocate(int64_t size) const final;
  void fill(Split split, const int64_t* samples, int64_t begin, int64_t end, bool augment,
            uint64_t seed, int64_t epoch, Batch& batch) const final;
  RawBatch raw(Split split, const std::vector<int64_t>& samples) const final;
  Preprocessing preprocessing() const final;
  std::string statistics() const final { return statistics_; }

 protected:
  // where the window of a sample begins
  struct Place {
    const TokenStream* stream;
    int64_t begin;
  };
  virtual Place place(Split split, int64_t sample, bool augment, uint64_t seed,
                      int64_t epoch) const = 0;

  DataInfo info_;  // is_text, vocabulary, context, tokenizer, fingerprint: the source's to fill in
  bool document_mask_ = false;
  std::string statistics_;
};

// What statistics() says of one split.
struct SplitFigures {
  int64_t tokens = 0, documents = 0;
  uint64_t text_bytes = 0;
  double bytes_per_token() const {
    return tokens == 0 ? 0 : static_cast<double>(text_bytes) / static_cast<double>(tokens);
  }
};
// {"kind": "text", "tokens": {"train": ...}, ..., "unigram_entropy": nats per training token}
std::string text_statistics(const SplitFigures (&splits)[3], const DataInfo& info,
                            const std::vector<const TokenStream*>& train);

std::shared_ptr<Dataset> open_text(const FieldSource& fields);
std::shared_ptr<Dataset> open_tokens(const FieldSource& fields);

}  // namespace lehr::data
