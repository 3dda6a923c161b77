#include "engine/data/added_tokens.h"

#include <algorithm>

#include "engine/data/split.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {
namespace {

// the character that ends at `at`; 0 bytes: there is none, or no UTF-8
CodePoint before(std::string_view text, size_t at) {
  for (size_t bytes = 1; bytes <= std::min<size_t>(4, at); ++bytes)
    if (const CodePoint point = code_point(text.substr(0, at), at - bytes);
        point.bytes == static_cast<int>(bytes))
      return point;
  return {};
}

CodePoint after(std::string_view text, size_t at) {
  return at < text.size() ? code_point(text, at) : CodePoint{};
}

bool is_word(const CodePoint& point) { return point.bytes > 0 && is_word_character(point.value); }
bool is_space(const CodePoint& point) { return point.bytes > 0 && is_white_space(point.value); }

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    by_first_[tokens_[i].normalized][static_cast<uint8_t>(tokens_[i].content.at(0))].push_back(i);
    any_[tokens_[i].normalized] = true;
    any_plain_ = any_plain_ || !tokens_[i].special;
  }
  for (auto& pass : by_first_)
    for (auto& same : pass)
      std::stable_sort(same.begin(), same.end(), [&](uint32_t a, uint32_t b) {
        return tokens_[a].content.size() > tokens_[b].content.size();
      });
}

AddedTokens::Found AddedTokens::find(std::string_view text, size_t at, bool normalized) const {
  for (; any_[normalized] && at < text.size(); ++at)
    for (uint32_t i : by_first_[normalized][static_cast<uint8_t>(text[at])])
      if (text.substr(at).starts_with(tokens_[i].content))
        return {at, at + tokens_[i].content.size(), &tokens_[i]};
  return {text.size(), text.size(), nullptr};
}

bool AddedTokens::stretch(std::string_view text, Found* found) {
  if (found->token->single_word &&
      (is_word(before(text, found->begin)) || is_word(after(text, found->end))))
    return false;
  if (found->token->lstrip)
    for (CodePoint point; is_space(point = before(text, found->begin));)
      found->begin -= static_cast<size_t>(point.bytes);
  if (found->token->rstrip)
    for (CodePoint point; is_space(point = after(text, found->end));)
      found->end += static_cast<size_t>(point.bytes);
  return true;
}

}  // namespace lehr::data
