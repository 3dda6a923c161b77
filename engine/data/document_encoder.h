// Documents to tokens, by several threads ahead of time, in the documents' order.
#pragma once

#include <deque>
#include <future>
#include <optional>
#include <vector>

#include "engine/data/document_stream.h"

namespace lehr::data {

// A piece of a document: its first one has the begin tokens, its last one the end-of-text.
struct Encoded {
  Tokens ids;
  bool is_first = true, is_last = true;
  uint64_t document = 0;  // of the last piece: document_id of the whole
  size_t text_bytes = 0;
  InputPlace end;
};

class DocumentEncoder {
 public:
  // `ends`: documents stand between the tokenizer's begin and end-of-text tokens.
  DocumentEncoder(DocumentStream& documents, const Tokenizer& tokenizer, bool ends, int threads);
  void seek(const InputPlace& place);
  // nullopt: there is no more. Throws Error{kData} that names file and byte for what the tokenizer
  // has no token for, and what reading throws.
  std::optional<Encoded> next();

 private:
  bool start();
  Encoded encoded(const DocumentPiece& piece) const;

  DocumentStream& documents_;
  const Tokenizer& tokenizer_;
  const int threads_;
  Tokens begin_;
  std::optional<uint32_t> end_;
  std::deque<std::future<std::vector<Encoded>>> ahead_;  // each waits for its thread when it goes
  std::deque<Encoded> ready_;
};

}  // namespace lehr::data
