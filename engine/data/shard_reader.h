// Token shards as streams, all of one tokenizer.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine/data/windows.h"

namespace lehr::data {

class ShardReader {
 public:
  // `tokenizer`: json() of the one that made them all; "": that of the first shard.
  explicit ShardReader(std::string tokenizer = "");
  // Appends the shards `paths` of `folder`. Throws Error{kData}, for one of another tokenizer too.
  void read(const TokenFolder& folder, const std::vector<std::string>& paths, TokenStream& stream,
            SplitFigures& figures);
  int64_t vocabulary() const { return vocabulary_; }
  const std::string& tokenizer() const { return tokenizer_; }             // "": not known
  const std::vector<std::string>& contents() const { return contents_; }  // checksums, in order

 private:
  std::string tokenizer_, first_ = "the model";
  std::set<std::string> accepted_;  // checksums of tokenizers
  std::vector<std::string> contents_;
  int64_t vocabulary_ = 0;
};

}  // namespace lehr::data
