#include "engine/data/document_stream.h"

#include <algorithm>

#include "engine/base/what_is.h"
#include "engine/data/documents.h"

namespace lehr::data {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kReadBytes = 1 << 22;

}  // namespace

void DocumentStream::seek(const InputPlace& place) {
  place_ = place;
  file_.reset(), whole_.reset();
  in_document_ = false;
}

void DocumentStream::open_file() {
  const std::string& path = paths_[place_.file];
  file_ = std::make_unique<ByteStream>(path);
  buffer_ = std::make_shared<std::string>();
  at_ = 0, ended_ = false, found_separator_ = place_.byte > 0;
  if (place_.byte > 0) return file_->skip(place_.byte);
  fill(kHeadBytes);
  const size_t text = plain_text(*buffer_, path).size();
  at_ = place_.byte = buffer_->size() - text;  // a byte order mark is passed over
}

// Reads on until `wanted` bytes are in the buffer behind `at_`; false: the file ends before.
bool DocumentStream::fill(size_t wanted) {
  if (buffer_->size() - at_ >= wanted || ended_) return buffer_->size() - at_ >= wanted;
  // pieces may still point into the old one
  auto larger = std::make_shared<std::string>();
  const size_t kept = buffer_->size() - at_;
  larger->resize(std::max(wanted, kReadBytes));
  std::copy_n(buffer_->data() + at_, kept, larger->data());
  const size_t space = larger->size() - kept, got = file_->read(larger->data() + kept, space);
  larger->resize(kept + got);
  ended_ = got < space;
  buffer_ = std::move(larger), at_ = 0;
  return buffer_->size() >= wanted;
}

// The next `size` bytes of text; the one after it begins `after` bytes on.
DocumentPiece DocumentStream::piece(size_t size, size_t after, bool is_last) {
  DocumentPiece piece;
  piece.memory = buffer_;
  piece.text = std::string_view(*buffer_).substr(at_, size);
  piece.begin = place_;
  at_ += after, place_.byte += after;
  piece.end = place_;
  piece.is_first = !in_document_, piece.is_last = is_last;
  in_document_ = !is_last;
  if (piece.is_first && is_last) {
    piece.document = document_id(piece.text);
    return piece;
  }
  if (piece.is_first) whole_ = std::make_unique<Xxh3>();
  whole_->update(piece.text.data(), piece.text.size());
  if (is_last) piece.document = document_id(*whole_);
  return piece;
}

std::optional<DocumentPiece> DocumentStream::next() {
  for (; place_.file < paths_.size(); place_ = {place_.file + 1, 0}, file_.reset()) {
    if (!file_) open_file();
    for (size_t wanted = kPieceBytes;;) {
      const bool more = fill(wanted);
      const std::string_view rest = std::string_view(*buffer_).substr(at_);
      const size_t found = separator_.empty() ? rest.npos : rest.find(separator_);
      if (found != rest.npos) {
        found_separator_ = true;
        const bool is_empty = found == 0 && !in_document_;
        DocumentPiece one = piece(found, found + separator_.size(), true);
        wanted = kPieceBytes;
        if (is_empty) continue;
        return one;
      }
      if (!more) {
        if (!separator_.empty() && !found_separator_ && !rest.empty()) {
          if (not_separated_.empty()) sample_ = rest.substr(0, kPieceBytes);
          not_separated_.push_back(paths_[place_.file]);
        }
        const bool is_empty = rest.empty() && !in_document_;
        DocumentPiece one = piece(rest.size(), rest.size(), true);
        if (is_empty) break;
        return one;
      }
      // a separator may begin at its end
      const size_t sure =
          std::min(rest.size(), wanted) - (separator_.empty() ? 0 : separator_.size() - 1);
      const size_t size = sure < kPieceBytes / 2 ? 0 : tokenizer_.whole(rest.substr(0, sure));
      if (size > 0) return piece(size, size, false);
      wanted *= 2;
    }
  }
  return std::nullopt;
}

}  // namespace lehr::data
