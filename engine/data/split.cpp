#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/data/split.h"

#include <fmt/format.h>
#include <pcre2.h>

#include "engine/base/error.h"
#include "engine/data/tokenizer.h"

namespace lehr::data {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

// Unicode's White_Space, which \s means elsewhere; PCRE2's own has one character more
const char* const kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string with_unicode_space(const std::string& pattern, const std::string& where) {
  std::string result;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 'S' && in_class)
        throw Error(Code::kData, fmt::format("\\S within [] in the split pattern {}", pattern),
                    where, "Lehr reads patterns that have it outside of [].");
      if (next == 's')
        result += in_class ? kSpace : fmt::format("[{}]", kSpace);
      else if (next == 'S')
        result += fmt::format("[^{}]", kSpace);
      else
        result += {c, next};
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    result += c;
  }
  return result;
}

// what a match needs beside the pattern, once a thread
struct Match {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 64 << 20, nullptr);
  Match() {
    pcre2_set_match_limit(context, UINT32_MAX);
    pcre2_set_depth_limit(context, UINT32_MAX);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Match() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

pcre2_code* compiled(const std::string& text, const std::string& pattern,
                     const std::string& where) {
  int problem = 0;
  size_t at = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &problem, &at, nullptr);
  if (code) return code;
  char message[256] = "";
  pcre2_get_error_message(problem, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
  throw Error(Code::kData,
              fmt::format("the split pattern {} cannot be read from '{}' on: {}", pattern,
                          text.substr(std::min(at, text.size())), message),
              where, "Lehr reads patterns that PCRE2 takes.");
}

}  // namespace

Splitter::Splitter(const std::string& pattern, const std::string& where) : pattern_(pattern) {
  pcre2_code* code = compiled(with_unicode_space(pattern, where), pattern, where);
  // without compilation to machine code everything works, some ten times slower
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  code_ = std::shared_ptr<const void>(code, [code](const void*) { pcre2_code_free(code); });
  uint32_t behind = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MAXLOOKBEHIND, &behind);
  looks_behind_ = behind > 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && ++i < pattern.size())
      looks_behind_ = looks_behind_ || pattern[i] == 'A' || pattern[i] == 'G';
    else if (pattern[i] == '^' && (i == 0 || pattern[i - 1] != '['))
      looks_behind_ = true;
  }
}

void Splitter::split(std::string_view text, std::vector<size_t>& ends) const {
  // runs of UTF-8, which PCRE2 then need not check at every word, and runs of what is none
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size()) {
      const int bytes = code_point(text, end).bytes;
      if (bytes == 0) break;
      end += bytes;
    }
    if (end > begin) split_valid(text.substr(begin, end - begin), begin, false, ends);
    begin = end;
    while (end < text.size() && code_point(text, end).bytes == 0) ++end;
    if (end > begin) ends.push_back(end);
    begin = end;
  }
}

size_t Splitter::certain(std::string_view text) const {
  if (looks_behind_) return 0;
  const size_t size = whole_characters(text);
  std::vector<size_t> ends;
  size_t sure = 0;
  for (size_t begin = 0; begin < size;) {
    size_t end = begin;
    for (int bytes; end < size && (bytes = code_point(text, end).bytes) > 0;) end += bytes;
    if (end >= size) return begin + split_valid(text.substr(begin, size - begin), 0, true, ends);
    begin = end;
    while (end < size && code_point(text, end).bytes == 0) ++end;
    if (end >= size) break;  // a run of what is no UTF-8 may go on
    sure = begin = end;
  }
  return sure;
}

size_t Splitter::split_valid(std::string_view text, size_t base, bool more,
                             std::vector<size_t>& ends) const {
  thread_local const Match match;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(match.data);
  for (size_t at = 0; at < text.size();) {
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | (more ? PCRE2_PARTIAL_HARD : 0);
    int result = pcre2_match(code, subject, text.size(), at, options, match.data, match.context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
      result = pcre2_match(code, subject, text.size(), at, options | PCRE2_NO_JIT, match.data,
                           match.context);
    if (more && (result == PCRE2_ERROR_PARTIAL || result == PCRE2_ERROR_NOMATCH)) return at;
    if (result == PCRE2_ERROR_NOMATCH) {
      ends.push_back(base + text.size());
      return text.size();
    }
    if (result < 0)
      throw Error(Code::kData, fmt::format("splitting text into words fails (PCRE2: {})", result),
                  fmt::format("byte {}", base + at));
    if (found[0] > at) ends.push_back(base + found[0]);
    ends.push_back(base + found[1]);
    at = found[1];
  }
  return text.size();
}

bool is_white_space(uint32_t code) {
  return (code >= 0x9 && code <= 0xd) || code == 0x20 || code == 0x85 || code == 0xa0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
         code == 0x202f || code == 0x205f || code == 0x3000;
}

bool is_word_character(uint32_t code) {
  const char* const kWord = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])";
  static const pcre2_code* const word = compiled(kWord, kWord, "");
  thread_local const Match match;
  std::string text;
  append_utf8(code, text);
  return pcre2_match(word, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                     PCRE2_NO_UTF_CHECK, match.data, nullptr) > 0;
}

}  // namespace lehr::data
