// Tokens that are found in a text before it is split into words, by Hugging Face's rules.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lehr::data {

// The flags are those of tokenizer.json's `added_tokens`.
struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool special = true;       // its name in a text is text, unless special ones are asked for
  bool single_word = false;  // not beside a letter, mark, digit or _
  bool lstrip = false, rstrip = false;  // takes the white space before, after it along
  bool normalized = false;              // looked for in what the others leave
};

class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);
  const std::vector<AddedToken>& all() const { return tokens_; }
  bool any_plain() const { return any_plain_; }  // not special: found in every text
  // Calls `words` for each stretch of text without tokens and `token` with the id of each that is
  // found, in order. Of tokens that begin at one place the longest counts.
  template <class Words, class Token>
  void split(std::string_view text, bool special, const Words& words, const Token& token) const {
    split(text, special, false, [&](std::string_view rest, uint32_t id, bool is_token) {
      if (is_token) return token(id);
      split(rest, special, true, [&](std::string_view part, uint32_t other, bool found) {
        found ? token(other) : words(part);
      });
    });
  }

 private:
  struct Found {
    size_t begin, end;
    const AddedToken* token;
  };
  // the first one of this pass that begins at `at` or later; token nullptr: none
  Found find(std::string_view text, size_t at, bool normalized) const;
  // where the white space around a token that was found reaches; false: it is not alone
  static bool stretch(std::string_view text, Found* found);

  template <class Each>
  void split(std::string_view text, bool special, bool normalized, const Each& each) const {
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      Found found = find(text, at, normalized);
      if (!found.token) break;
      at = found.end;
      if ((found.token->special && !special) || !stretch(text, &found)) continue;
      if (found.begin > done) each(text.substr(done, found.begin - done), 0, false);
      each({}, found.token->id, true);
      done = found.end;
    }
    if (done < text.size()) each(text.substr(done), 0, false);
  }

  std::vector<AddedToken> tokens_;          // by id
  std::vector<uint32_t> by_first_[2][256];  // into tokens_, the longest first
  bool any_[2] = {}, any_plain_ = false;
};

}  // namespace lehr::data
