#include "engine/data/shard_reader.h"

#include <fmt/format.h>

#include "engine/base/error.h"
#include "engine/base/hash.h"

namespace lehr::data {
namespace {

std::string hash_of(const std::string& text) { return xxh3_128(text.data(), text.size()); }

}  // namespace

ShardReader::ShardReader(std::string tokenizer) : tokenizer_(std::move(tokenizer)) {
  if (!tokenizer_.empty()) accepted_.insert(hash_of(tokenizer_));
}

void ShardReader::read(const TokenFolder& folder, const std::vector<std::string>& paths,
                       TokenStream& stream, SplitFigures& figures) {
  // other releases of Lehr write the same tokenizer otherwise
  const std::string own = folder.tokenizer.empty() ? "" : hash_of(folder.tokenizer);
  if (!own.empty() && !tokenizer_.empty() && !accepted_.contains(own) &&
      same_tokenizer(folder.tokenizer, tokenizer_))
    accepted_.insert(own);
  for (const auto& path : paths) {
    const TokenShard shard = open_token_shard(path);
    if (accepted_.empty()) accepted_.insert(shard.tokenizer);
    if (!accepted_.contains(shard.tokenizer))
      throw Error(Code::kData, fmt::format("made by another tokenizer than {}", first_), path,
                  "Make all of them with one tokenizer.");
    if (vocabulary_ == 0) first_ = path;
    vocabulary_ = shard.vocabulary;
    if (tokenizer_.empty() && own == shard.tokenizer) tokenizer_ = folder.tokenizer;
    stream.add(shard);
    figures.add({shard.count, static_cast<int64_t>(shard.documents.size()), shard.text_bytes});
    contents_.push_back(shard.content);
  }
}

}  // namespace lehr::data
