// Byte-level byte-pair encoding (Sennrich et al. 2016; over bytes: Radford et al. 2019): words are
// bytes, and the pair of neighbours that comes first in the list of merges becomes one token, again
// and again. A heap keeps long words from taking quadratic time.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/data/added_tokens.h"
#include "engine/data/split.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {

struct Merge {
  uint32_t left, right, result;
  uint32_t priority;  // the lowest goes first, the leftmost of the same
};

// What a tokenizer is made of, whatever file it came from.
struct BpeParts {
  std::vector<std::string> tokens;  // bytes of each id; "" where there is none
  std::vector<Merge> merges;
  std::vector<AddedToken> added;
  Tokens begin;  // what stands before every document
  std::string pattern = kGpt2Pattern;
  bool whole_words = false;  // a word that is a token is that token, whatever merges would give
};

std::shared_ptr<const Tokenizer> make_bpe(BpeParts parts, const std::string& where);

// A .tiktoken file: a line for each token, its bytes in base64 and its rank. A pair merges when
// both together are a token, the lowest rank first. `pattern`: gpt2 or llama3, which also say the
// special tokens that follow the last rank.
BpeParts rank_parts(std::string_view text, const std::string& pattern, const std::string& where);
std::shared_ptr<const Tokenizer> parse_ranks(std::string_view text, const std::string& pattern,
                                             const std::string& where);
// Hugging Face's tokenizer.json of a byte-level BPE.
std::shared_ptr<const Tokenizer> parse_bpe(const nlohmann::json& json, const std::string& where);
std::string write_bpe(const BpeParts& parts);
// The ids of byte_tokenizer, as such a tokenizer.
BpeParts byte_parts(bool end_of_text);

}  // namespace lehr::data
