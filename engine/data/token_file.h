// Token shards: ids in a file that is mapped, not read; TOKENS.md has the format. What is in it is
// checked before it is believed: the header at once, the ids when `verify` is asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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
  uint64_t text_bytes = 0;             // that the tokens stand for, separators left out
  std::vector<int64_t> documents;      // where they begin, ascending
  std::string tokenizer;               // XXH3-128 of its json()
  std::string content;                 // XXH3-128 of ids and documents
  InputPlace begin, end;               // what it was made of
  std::shared_ptr<const void> memory;  // the ids; owns the mapping
};

// Writes it durably: there and whole after return, or not there. `ids` are below `vocabulary`;
// documents, text_bytes, tokenizer, begin and end are taken from `shard`, all else is filled in.
void write_token_shard(TokenShard& shard, const Tokens& ids, int64_t vocabulary);
// Throws Error{kData}: missing, cut, damaged (with the byte), or of a newer version. With `verify`
// every byte is read and held against the checksum.
TokenShard open_token_shard(const std::string& path, bool verify = false);

// What lehr tokenize leaves in a folder, once it is complete.
struct TokenFolder {
  std::string tokenizer;                       // json()
  std::vector<std::string> train, validation;  // paths of shards
};
inline constexpr const char* kTokensIndex = "tokens.json";
TokenFolder read_token_folder(const std::string& path);

}  // namespace lehr::data
