// Text to token ids and back. A tokenizer is a value: its json() makes it again, and goes with the
// model. No kind loses a byte: decode(encode(x)) is x, for any x that encode takes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"

namespace lehr::data {

using Tokens = std::vector<uint32_t>;

inline constexpr const char* kEndOfText = "<|endoftext|>";

// Text that a tokenizer has no ids for; `byte` is where in the text that encode was given.
class UnknownText : public Error {
 public:
  UnknownText(uint64_t byte, const std::string& what, const std::string& hint);
  uint64_t byte() const { return byte_; }

 private:
  uint64_t byte_;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Appends the ids of `text`. Safe from several threads. Names of special tokens in the text are
  // text like any other (a user's text must not end a document), unless `special` is set; other
  // added tokens are found in every text. Throws UnknownText.
  virtual void encode(std::string_view text, Tokens& ids, bool special = false) const = 0;
  // How much of the beginning of a longer text has the ids that it has in the whole, whatever
  // follows; 0: not known.
  virtual size_t whole(std::string_view text) const = 0;
  // Throws Error{kData} for an id outside the vocabulary.
  virtual std::string decode(const uint32_t* ids, size_t count) const = 0;
  virtual int64_t vocabulary() const = 0;  // ids are below it
  // What stands before every document and prompt, where the tokenizer says so.
  virtual Tokens begin_of_text() const { return {}; }
  // What stands behind every document, where the tokenizer has one.
  virtual std::optional<uint32_t> end_of_text() const = 0;
  // How many bytes of text each id stands for: 0 for a special token, kNoToken for a number below
  // vocabulary() that is no token.
  static constexpr int64_t kNoToken = -1;
  virtual std::vector<int64_t> sizes() const = 0;
  virtual std::string kind() const = 0;  // "byte", "char", "bpe"
  // bpe: Hugging Face's tokenizer.json; byte and char: {"type": "lehr_byte", ...}.
  virtual std::string json() const = 0;

  Tokens encode(std::string_view text, bool special = false) const {
    Tokens ids;
    encode(text, ids, special);
    return ids;
  }
  std::string decode(const Tokens& ids) const { return decode(ids.data(), ids.size()); }
};

// The characters of texts that come one after the other.
class Alphabet {
 public:
  Alphabet() : seen_(0x110000) {}
  // Throws Error{kData} for what is no UTF-8, naming byte `byte` + its place of `where`.
  void add(std::string_view text, const std::string& where, uint64_t byte = 0);
  std::vector<uint32_t> codes() const;  // ascending

 private:
  std::vector<bool> seen_;
};

// 256 ids, each its own byte; with `end_of_text`, id 256 as well.
std::shared_ptr<const Tokenizer> byte_tokenizer(bool end_of_text);
// One id for each code point of `alphabet` (UTF-8), in ascending order, once; with `end_of_text`,
// one more. Encoding another character throws UnknownText. `where` names the text in errors.
std::shared_ptr<const Tokenizer> char_tokenizer(std::string_view alphabet, bool end_of_text,
                                                const std::string& where);
// Any json() of the above or of bpe.h, or a tokenizer.json of a byte-level BPE. Another kind of
// tokenizer is an Error{kData} that names it.
std::shared_ptr<const Tokenizer> parse_tokenizer(const std::string& json, const std::string& where);
// Whether two json() give the same ids; they may be of different releases of Lehr.
bool same_tokenizer(const std::string& a, const std::string& b);

// What a recipe or a command line names: kind is byte, char or bpe; `file` (gzip or not) holds the
// tokenizer (bpe: tokenizer.json, or a .tiktoken file of ranks), and is needed for bpe; `pattern`
// (gpt2, llama3) is how a .tiktoken file splits words; `text` (of the file `where`) gives char its
// alphabet where there is no file. Where documents are separated the tokenizer must have an
// end-of-text token.
struct TokenizerChoice {
  std::string kind, file, pattern = "gpt2";
  bool end_of_text = false;
};
std::shared_ptr<const Tokenizer> make_tokenizer(const TokenizerChoice& choice,
                                                std::string_view text, const std::string& where);

// The code point at `at` of UTF-8 text, and how many bytes it takes; 0 bytes: not UTF-8.
struct CodePoint {
  uint32_t value = 0;
  int bytes = 0;
};
CodePoint code_point(std::string_view text, size_t at);
// How much of the text there is up to the last character that is all there.
size_t whole_characters(std::string_view text);
void append_utf8(uint32_t code, std::string& out);

}  // namespace lehr::data
