// `lehr tokenize`: text files to token shards, in parallel, and the same bytes however often it was
// cut and continued.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/track/track.h"

namespace lehr::run {

struct TokenizeRequest {
  std::vector<std::string> inputs;  // text files, gzip or not
  std::string tokenizer = "bpe", tokenizer_file, split_pattern = "gpt2";
  std::string output;  // a folder
  // what separates documents (\n, \t, \r, \\ written out or not); empty: each file is a document
  std::string separator;
  int64_t shard_tokens = 100'000'000;  // a shard ends with the document that reaches this many
  int threads = 0;                     // 0: one a core
  double validation_fraction = 0;      // of the documents, by a hash of their text
};

// data/TOKENS.md has what is written. A folder that holds another tokenization is an Error{kUsage}
// that names what differs; shards that do not verify are named and made again.
void tokenize(const TokenizeRequest& request, track::Terminal& terminal);

}  // namespace lehr::run
