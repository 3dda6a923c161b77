// The documents of text files one after the other, in memory of a few pieces, however large files
// and documents are.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/hash.h"
#include "engine/data/bytes.h"
#include "engine/data/token_file.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {

// A document, or a part of one that has the ids it has in the whole.
struct DocumentPiece {
  std::shared_ptr<const std::string> memory;  // that `text` lies in
  std::string_view text;
  InputPlace begin, end;  // of the last part, where the next document begins
  bool is_first = true, is_last = true;
  uint64_t document = 0;  // of the last part: document_id of the whole
};

class DocumentStream {
 public:
  // `separator` "": each file is a document. Throws Error{kData} where a file is no text.
  DocumentStream(std::vector<std::string> paths, std::string separator, const Tokenizer& tokenizer)
      : paths_(std::move(paths)), separator_(std::move(separator)), tokenizer_(tokenizer) {}
  void seek(const InputPlace& place);  // where a document begins
  std::optional<DocumentPiece> next();
  const std::string& path(const InputPlace& place) const { return paths_[place.file]; }
  // Files in which the separator was looked for and not found, and some text of the first.
  const std::vector<std::string>& not_separated() const { return not_separated_; }
  const std::string& sample() const { return sample_; }

 private:
  bool fill(size_t wanted);
  void open_file();
  DocumentPiece piece(size_t size, size_t after, bool is_last);

  const std::vector<std::string> paths_;
  const std::string separator_;
  const Tokenizer& tokenizer_;
  InputPlace place_;  // of the next byte that no piece has
  std::unique_ptr<ByteStream> file_;
  std::shared_ptr<std::string> buffer_;
  size_t at_ = 0;       // of the next byte in the buffer
  bool ended_ = false;  // all of the file is in the buffer
  bool in_document_ = false, found_separator_ = false;
  std::unique_ptr<Xxh3> whole_;  // of a document in several parts
  std::vector<std::string> not_separated_;
  std::string sample_;
};

}  // namespace lehr::data
