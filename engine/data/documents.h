// Documents within a text file: what stands between separators, and which of them are held out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/hash.h"
#include "engine/data/bytes.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {

// The text in a file, a byte order mark left out. Throws Error{kData} where it is none (what_is.h).
std::string_view text_of(const Bytes& file);

// The texts between separators, empty ones left out; all of the text where the separator is "".
std::vector<std::string_view> split_documents(std::string_view text, const std::string& separator);

// How a text becomes tokens, wherever it is read.
struct TextLayout {
  std::string separator;  // of documents; "": all of the text is one
  bool ends = false;      // documents stand between the tokenizer's begin and end-of-text tokens
  bool operator==(const TextLayout&) const = default;
};
// Where a separator stands nowhere in a text that should have it: a line that says so, with the
// likely cause. `text`: some of it is enough.
std::string separator_remark(const std::string& separator, std::string_view text,
                             const std::string& path);

// Appends the ids of documents, parts of `file`, and where each begins in `ids`. Throws
// Error{kData} that names the file and the byte in it for what the tokenizer has no token for.
void encode_documents(const Bytes& file, const std::vector<std::string_view>& documents,
                      const Tokenizer& tokenizer, bool ends, Tokens& ids,
                      std::vector<int64_t>& begins);

// What held_out() takes for a document: a hash of its text, so that documents of the same text are
// on the same side, wherever they stand.
uint64_t document_id(std::string_view document);
uint64_t document_id(const Xxh3& document);  // that was hashed in parts

}  // namespace lehr::data
