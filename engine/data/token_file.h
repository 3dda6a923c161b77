// Token shards: ids in a file that is mapped, not read; TOKENS.md has the format. What is in it is
// checked before it is believed: the header at once, the ids when `verify` is asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/data/documents.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {

// Where in the input of a tokenization something stands: the file by its number, the byte in it
// (of the text, inflated).
struct InputPlace {
  uint64_t file = 0, byte = 0;
  bool operator==(const InputPlace&) const = default;
};

struct TokenShard {
  std::string path;
  int token_bytes = 2;  // 2 or 4
  int64_t count = 0, vocabulary = 0;
  uint64_t text_bytes = 0;  // that the tokens stand for, separators left out
  // where documents begin, ascending: as the file says, which is checked where it is used
  std::span<const int64_t> documents;
  std::string tokenizer;               // XXH3-128 of its json()
  std::string content;                 // XXH3-128 of ids and documents
  InputPlace begin, end;               // what it was made of
  std::shared_ptr<const void> memory;  // the ids; owns the mapping, of the documents too
};

// Writes a shard piece by piece, durably: there and whole after finish(), or not there.
class TokenShardWriter {
 public:
  TokenShardWriter(std::string path, int64_t vocabulary);
  void begin_document() { documents_.push_back(count_); }
  void append(const Tokens& ids);  // below the vocabulary
  int64_t documents() const { return static_cast<int64_t>(documents_.size()); }
  // text_bytes, tokenizer, begin and end are taken from `about`; documents too, where
  // begin_document was not called. All else but `memory` is filled in.
  void finish(TokenShard& about);

 private:
  void flush();
  std::string path_;
  Temporary temporary_;
  int64_t vocabulary_, count_ = 0;
  int token_bytes_;
  std::unique_ptr<FileWriter> file_;
  std::vector<char> buffer_;
  std::vector<int64_t> documents_;
  Xxh3 content_;
};
// All of one at once.
void write_token_shard(TokenShard& shard, const Tokens& ids, int64_t vocabulary);
// Throws Error{kData}: missing, cut, damaged (with the byte), or of a newer version. With `verify`
// every byte is read and held against the checksum.
TokenShard open_token_shard(const std::string& path, bool verify = false);

// What lehr tokenize leaves in a folder, once it is complete.
struct TokenFolder {
  std::string tokenizer;                       // json(); "": not known
  std::vector<std::string> train, validation;  // paths of shards
  std::vector<int64_t> counts;       // how often each id stands in `train`; empty: not known
  std::optional<TextLayout> layout;  // of the texts that it was made of; nullopt: not known
};
inline constexpr const char* kTokensIndex = "tokens.json";
TokenFolder read_token_folder(const std::string& path);
// The same, or of a single .tokens file what can be known: the folder that it lies in may hold its
// tokenizer.
TokenFolder token_folder(const std::string& path);
bool is_token_shards(const std::string& path);  // a .tokens file, or a folder with an index

}  // namespace lehr::data
