#include "engine/data/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "engine/base/what_is.h"
#include "engine/data/bpe.h"
#include "engine/data/bytes.h"

namespace lehr::data {
namespace {

using Json = nlohmann::json;

// appends pieces of text, and the end-of-text id for its name where `special` is set
template <class Encode>
void around_end_of_text(std::string_view text, std::optional<uint32_t> end, bool special,
                        Tokens& ids, const Encode& encode) {
  size_t at = 0;
  while (special && end) {
    const size_t found = text.find(kEndOfText, at);
    if (found == std::string_view::npos) break;
    encode(at, found);
    ids.push_back(*end);
    at = found + std::string_view(kEndOfText).size();
  }
  encode(at, text.size());
}

[[noreturn]] void bad_id(uint32_t id, int64_t vocabulary) {
  throw Error(Code::kData, fmt::format("there is no token {}", id), "",
              fmt::format("The tokenizer has ids 0 to {}.", vocabulary - 1));
}

class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(bool end_of_text) : has_end_(end_of_text) {}
  void encode(std::string_view text, Tokens& ids, bool special) const override {
    around_end_of_text(text, end_of_text(), special, ids, [&](size_t begin, size_t end) {
      ids.reserve(ids.size() + end - begin);
      for (size_t i = begin; i < end; ++i) ids.push_back(static_cast<uint8_t>(text[i]));
    });
  }
  std::string decode(const uint32_t* ids, size_t count) const override {
    std::string text;
    text.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      if (ids[i] >= vocabulary()) bad_id(ids[i], vocabulary());
      if (ids[i] < 256)
        text += static_cast<char>(ids[i]);
      else
        text += kEndOfText;
    }
    return text;
  }
  size_t whole(std::string_view text) const override { return text.size(); }
  std::vector<int64_t> sizes() const override {
    std::vector<int64_t> sizes(256, 1);
    if (has_end_) sizes.push_back(0);
    return sizes;
  }
  int64_t vocabulary() const override { return has_end_ ? 257 : 256; }
  std::optional<uint32_t> end_of_text() const override {
    return has_end_ ? std::optional<uint32_t>(256) : std::nullopt;
  }
  std::string kind() const override { return "byte"; }
  std::string json() const override {
    return Json{{"type", "lehr_byte"}, {"version", 1}, {"end_of_text", has_end_}}.dump();
  }

 private:
  const bool has_end_;
};

class CharTokenizer : public Tokenizer {
 public:
  CharTokenizer(std::vector<uint32_t> codes, bool end_of_text)
      : codes_(std::move(codes)), has_end_(end_of_text) {
    std::fill(std::begin(ascii_), std::end(ascii_), kNone);
    for (uint32_t id = 0; id < codes_.size(); ++id) {
      if (codes_[id] < 128)
        ascii_[codes_[id]] = id;
      else
        others_[codes_[id]] = id;
    }
  }
  void encode(std::string_view text, Tokens& ids, bool special) const override {
    around_end_of_text(text, end_of_text(), special, ids, [&](size_t begin, size_t end) {
      for (size_t at = begin; at < end;) {
        const CodePoint point = code_point(text.substr(0, end), at);
        if (point.bytes == 0)
          throw UnknownText(at, "the text is not UTF-8 here",
                            "Convert it to UTF-8, or take data.tokenizer: byte.");
        const uint32_t id = find(point.value);
        if (id == kNone)
          throw UnknownText(at,
                            fmt::format("the character '{}' (U+{:04X}) is not in the alphabet",
                                        text.substr(at, point.bytes), point.value),
                            "The alphabet is that of the training text: add a text with this "
                            "character to it, or take data.tokenizer: byte or bpe.");
        ids.push_back(id);
        at += point.bytes;
      }
    });
  }
  std::string decode(const uint32_t* ids, size_t count) const override {
    std::string text;
    for (size_t i = 0; i < count; ++i) {
      if (ids[i] < codes_.size())
        append_utf8(codes_[ids[i]], text);
      else if (ids[i] < vocabulary())
        text += kEndOfText;
      else
        bad_id(ids[i], vocabulary());
    }
    return text;
  }
  size_t whole(std::string_view text) const override { return whole_characters(text); }
  std::vector<int64_t> sizes() const override {
    std::vector<int64_t> sizes;
    for (uint32_t code : codes_)
      sizes.push_back(code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4);
    if (has_end_) sizes.push_back(0);
    return sizes;
  }
  int64_t vocabulary() const override { return static_cast<int64_t>(codes_.size()) + has_end_; }
  std::optional<uint32_t> end_of_text() const override {
    return has_end_ ? std::optional<uint32_t>(codes_.size()) : std::nullopt;
  }
  std::string kind() const override { return "char"; }
  std::string json() const override {
    std::string alphabet;
    for (uint32_t code : codes_) append_utf8(code, alphabet);
    return Json{
        {"type", "lehr_char"}, {"version", 1}, {"alphabet", alphabet}, {"end_of_text", has_end_}}
        .dump();
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  uint32_t find(uint32_t code) const {
    if (code < 128) return ascii_[code];
    auto found = others_.find(code);
    return found == others_.end() ? kNone : found->second;
  }

  const std::vector<uint32_t> codes_;  // ascending
  const bool has_end_;
  uint32_t ascii_[128];
  std::unordered_map<uint32_t, uint32_t> others_;
};

}  // namespace

UnknownText::UnknownText(uint64_t byte, const std::string& what, const std::string& hint)
    : Error(Code::kData, what, fmt::format("byte {}", byte), hint), byte_(byte) {}

std::shared_ptr<const Tokenizer> byte_tokenizer(bool end_of_text) {
  return std::make_shared<ByteTokenizer>(end_of_text);
}

void Alphabet::add(std::string_view text, const std::string& where, uint64_t byte) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point(text, at);
    if (point.bytes == 0)
      bad_byte(where, byte + at, "the text is not UTF-8 here",
               "Convert it to UTF-8, or take data.tokenizer: byte.");
    seen_[point.value] = true;
    at += point.bytes;
  }
}

std::vector<uint32_t> Alphabet::codes() const {
  std::vector<uint32_t> codes;
  for (uint32_t code = 0; code < seen_.size(); ++code)
    if (seen_[code]) codes.push_back(code);
  return codes;
}

std::shared_ptr<const Tokenizer> char_tokenizer(std::string_view text, bool end_of_text,
                                                const std::string& where) {
  Alphabet alphabet;
  alphabet.add(text, where);
  auto codes = alphabet.codes();
  if (codes.empty()) throw Error(Code::kData, "there is no text in it", where);
  return std::make_shared<CharTokenizer>(std::move(codes), end_of_text);
}

bool same_tokenizer(const std::string& a, const std::string& b) {
  return a == b || parse_tokenizer(a, "")->json() == parse_tokenizer(b, "")->json();
}

std::shared_ptr<const Tokenizer> parse_tokenizer(const std::string& text,
                                                 const std::string& where) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& error) {
    bad_byte(where, error.byte, "the tokenizer is not JSON", error.what());
  }
  if (!json.is_object())
    throw Error(Code::kData, "the tokenizer is not a JSON object", where,
                "Give a tokenizer.json, or a .tiktoken file of ranks.");
  const std::string type =
      json.contains("type") && json["type"].is_string() ? json["type"].get<std::string>() : "";
  if (!type.starts_with("lehr_")) return parse_bpe(json, where);
  try {
    if (json.at("version") != 1)
      throw Error(Code::kData, fmt::format("version {} of {}", json.at("version").dump(), type),
                  where, "It was written by a newer Lehr.");
    if (type == "lehr_byte") return byte_tokenizer(json.at("end_of_text"));
    if (type == "lehr_char")
      return char_tokenizer(json.at("alphabet").get<std::string>(), json.at("end_of_text"), where);
  } catch (const Json::exception& error) {
    throw Error(Code::kData, fmt::format("not a tokenizer of type {}", type), where, error.what());
  }
  throw Error(Code::kData, fmt::format("there is no tokenizer of type '{}'", type), where,
              "Types are lehr_byte, lehr_char and Hugging Face's BPE.");
}

std::shared_ptr<const Tokenizer> make_tokenizer(const TokenizerChoice& choice,
                                                std::string_view text, const std::string& where) {
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!choice.file.empty()) {
    const Bytes file = read_bytes(choice.file);
    const std::string content(
        plain_text({reinterpret_cast<const char*>(file.begin()), file.size}, choice.file));
    const bool is_json = content.find_first_not_of(" \t\r\n") != std::string::npos &&
                         content[content.find_first_not_of(" \t\r\n")] == '{';
    tokenizer = is_json ? parse_tokenizer(content, choice.file)
                        : parse_ranks(content, choice.pattern, choice.file);
    if (tokenizer->kind() != choice.kind)
      throw Error(Code::kRecipe,
                  fmt::format("{} holds a {} tokenizer", choice.file, tokenizer->kind()),
                  "data.tokenizer", fmt::format("Set it to {}.", tokenizer->kind()));
  } else if (choice.kind == "byte") {
    tokenizer = byte_tokenizer(choice.end_of_text);
  } else if (choice.kind == "char") {
    tokenizer = char_tokenizer(text, choice.end_of_text, where);
  } else {
    throw Error(Code::kRecipe, "a bpe tokenizer comes from a file", "data.tokenizer_file",
                "Name a tokenizer.json, or a .tiktoken file: scripts/data gpt2_tokenizer fetches "
                ".data/gpt2_tokenizer/gpt2.tiktoken.gz.");
  }
  if (choice.end_of_text && !tokenizer->end_of_text())
    throw Error(Code::kRecipe,
                "documents are separated, but the tokenizer has no end-of-text token",
                "data.tokenizer_file",
                fmt::format("Add {} to it, or leave out data.document_separator.", kEndOfText));
  return tokenizer;
}

size_t whole_characters(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte >= 0xc0)
      return back < (byte < 0xe0 ? 2u : byte < 0xf0 ? 3u : 4u) ? text.size() - back : text.size();
  }
  return text.size();
}

CodePoint code_point(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const int bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() - at < static_cast<size_t>(bytes)) return {};
  uint32_t value = first & (0x7f >> bytes);
  for (int i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3f);
  }
  // longer than needed, half of a surrogate pair, or beyond Unicode
  if (value < (bytes == 3   ? 0x800u
               : bytes == 4 ? 0x10000u
                            : 0x80u) ||
      value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
    return {};
  return {value, bytes};
}

void append_utf8(uint32_t code, std::string& out) {
  auto add = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xc0 | code >> 6), add(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    add(0xe0 | code >> 12), add(0x80 | (code >> 6 & 0x3f)), add(0x80 | (code & 0x3f));
  } else {
    add(0xf0 | code >> 18), add(0x80 | (code >> 12 & 0x3f)), add(0x80 | (code >> 6 & 0x3f));
    add(0x80 | (code & 0x3f));
  }
}

}  // namespace lehr::data
