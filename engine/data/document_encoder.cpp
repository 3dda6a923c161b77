#include "engine/data/document_encoder.h"

#include <iterator>

namespace lehr::data {
namespace {

constexpr size_t kBatchBytes = 1 << 20;  // long enough that handing it over costs nothing

}  // namespace

DocumentEncoder::DocumentEncoder(DocumentStream& documents, const Tokenizer& tokenizer, bool ends,
                                 int threads)
    : documents_(documents), tokenizer_(tokenizer), threads_(threads) {
  if (ends) begin_ = tokenizer.begin_of_text(), end_ = tokenizer.end_of_text();
}

void DocumentEncoder::seek(const InputPlace& place) {
  ahead_.clear();
  ready_.clear();
  documents_.seek(place);
}

std::optional<Encoded> DocumentEncoder::next() {
  while (ahead_.size() < static_cast<size_t>(2 * threads_) && start()) {
  }
  if (ready_.empty()) {
    if (ahead_.empty()) return std::nullopt;
    auto batch = ahead_.front().get();
    ahead_.pop_front();
    std::move(batch.begin(), batch.end(), std::back_inserter(ready_));
  }
  Encoded one = std::move(ready_.front());
  ready_.pop_front();
  return one;
}

// Hands a batch to a thread; false: the input is at its end.
bool DocumentEncoder::start() {
  std::vector<DocumentPiece> batch;
  for (size_t bytes = 0; bytes < kBatchBytes;) {
    auto piece = documents_.next();
    if (!piece) break;
    bytes += piece->text.size();
    batch.push_back(std::move(*piece));
  }
  if (batch.empty()) return false;
  ahead_.push_back(std::async(std::launch::async, [this, batch = std::move(batch)] {
    std::vector<Encoded> result;
    for (const DocumentPiece& piece : batch) result.push_back(encoded(piece));
    return result;
  }));
  return true;
}

Encoded DocumentEncoder::encoded(const DocumentPiece& piece) const {
  Encoded one;
  if (piece.is_first) one.ids = begin_;
  try {
    tokenizer_.encode(piece.text, one.ids);
  } catch (const UnknownText& error) {
    bad_byte(documents_.path(piece.begin), piece.begin.byte + error.byte(), error.message(),
             error.hint());
  }
  if (piece.is_last && end_) one.ids.push_back(*end_);
  one.is_first = piece.is_first, one.is_last = piece.is_last;
  one.document = piece.document;
  one.text_bytes = piece.text.size();
  one.end = piece.end;
  return one;
}

}  // namespace lehr::data
