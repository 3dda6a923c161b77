// The first half of byte-level BPE: text to words, by the regular expression that belongs to the
// tokenizer, through PCRE2. Its Unicode is that of the library (14 in Debian 12).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lehr::data {

// How GPT-2 and Llama 3 split text, as their tokenizer.json files write it.
extern const char* const kGpt2Pattern;
extern const char* const kLlama3Pattern;

class Splitter {
 public:
  // Throws Error{kData} for a pattern that PCRE2 does not take, with where it stops.
  Splitter(const std::string& pattern, const std::string& where);
  // Appends where words end. Words tile the text: what the pattern leaves out is a word too, and so
  // is each run of bytes that is not UTF-8.
  void split(std::string_view text, std::vector<size_t>& ends) const;
  // Where the last word ends that is the same whatever follows `text`; 0: none is, or the pattern
  // looks behind itself, so that a text can only be split whole.
  size_t certain(std::string_view text) const;
  const std::string& pattern() const { return pattern_; }

 private:
  // with `more`, only words that do not depend on what follows; returns where it came to
  size_t split_valid(std::string_view text, size_t base, bool more,
                     std::vector<size_t>& ends) const;

  std::string pattern_;
  std::shared_ptr<const void> code_;
  bool looks_behind_ = false;
};

// As Hugging Face's tokenizers class them: \w and \s of its regular expressions.
bool is_word_character(uint32_t code);
bool is_white_space(uint32_t code);

}  // namespace lehr::data
