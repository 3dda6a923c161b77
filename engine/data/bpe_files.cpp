// The two files that byte-level BPE comes in: ranks (.tiktoken) and Hugging Face's tokenizer.json,
// which is also written, so that other programs read a model's tokenizer.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "engine/data/bpe.h"

namespace lehr::data {
namespace {

using Json = nlohmann::json;

constexpr uint32_t kMostIds = 1u << 24;

// tokenizer.json writes a byte as a character that can be seen: the printable ones of Latin-1 as
// themselves, the others as U+0100 and on, in order
struct ByteLetters {
  uint32_t letter[256];
  std::unordered_map<uint32_t, uint8_t> byte;
  ByteLetters() {
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool seen = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      letter[b] = seen ? b : next++;
      byte[letter[b]] = static_cast<uint8_t>(b);
    }
  }
};
const ByteLetters& letters() {
  static const ByteLetters table;
  return table;
}

std::string to_letters(std::string_view bytes) {
  std::string text;
  for (char c : bytes) append_utf8(letters().letter[static_cast<uint8_t>(c)], text);
  return text;
}

std::optional<std::string> from_letters(std::string_view text) {
  std::string bytes;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point(text, at);
    auto found = letters().byte.find(point.value);
    if (point.bytes == 0 || found == letters().byte.end()) return std::nullopt;
    bytes += static_cast<char>(found->second);
    at += point.bytes;
  }
  return bytes;
}

std::optional<std::string> from_base64(std::string_view text) {
  static const std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = i + padding >= text.size() ? 0 : digits.find(text[i]);
    if (digit == digits.npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 == 3)
      for (int shift : {16, 8, 0}) bytes += static_cast<char>(bits >> shift);
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

std::vector<AddedToken> special_after(const std::string& pattern, uint32_t first) {
  if (pattern == "gpt2") return {{kEndOfText, first}};
  // Llama 3 has 256, most of them in reserve
  std::vector<AddedToken> special;
  uint32_t reserved = 0;
  for (uint32_t i = 0; i < 256; ++i) {
    std::string name;
    switch (i) {
      case 0:
        name = "<|begin_of_text|>";
        break;
      case 1:
        name = "<|end_of_text|>";
        break;
      case 6:
        name = "<|start_header_id|>";
        break;
      case 7:
        name = "<|end_header_id|>";
        break;
      case 9:
        name = "<|eot_id|>";
        break;
      default:
        name = fmt::format("<|reserved_special_token_{}|>", reserved++);
    }
    special.push_back({name, first + i});
  }
  return special;
}

// tokenizer.json names one pair for each token, where ranks allow every cut in two: the pair that
// merges of lower priority leave of the token's bytes. Where they leave more, nothing makes it.
std::vector<Merge> one_merge_a_token(const BpeParts& parts) {
  std::unordered_map<uint64_t, const Merge*> pairs;
  std::vector<uint32_t> priority(parts.tokens.size(), UINT32_MAX), bytes(256);
  bool several = false;
  for (const Merge& merge : parts.merges) {
    pairs[static_cast<uint64_t>(merge.left) << 32 | merge.right] = &merge;
    several = several || priority[merge.result] != UINT32_MAX;
    priority[merge.result] = merge.priority;
  }
  for (uint32_t id = 0; id < parts.tokens.size(); ++id)
    if (parts.tokens[id].size() == 1) bytes[static_cast<uint8_t>(parts.tokens[id][0])] = id;
  std::vector<Merge> merges;
  if (!several) merges = parts.merges;
  for (uint32_t id = 0; several && id < parts.tokens.size(); ++id) {
    std::vector<uint32_t> symbols;
    for (char c : parts.tokens[id]) symbols.push_back(bytes[static_cast<uint8_t>(c)]);
    while (symbols.size() > 1) {
      const Merge* best = nullptr;
      size_t at = 0;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        auto found = pairs.find(static_cast<uint64_t>(symbols[i]) << 32 | symbols[i + 1]);
        if (found != pairs.end() && (!best || found->second->priority < best->priority))
          best = found->second, at = i;
      }
      if (!best || best->priority > priority[id]) break;
      if (best->result == id && symbols.size() == 2) {
        merges.push_back(*best);
        break;
      }
      symbols[at] = best->result;
      symbols.erase(symbols.begin() + static_cast<int64_t>(at) + 1);
    }
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const Merge& a, const Merge& b) { return a.priority < b.priority; });
  return merges;
}

[[noreturn]] void other_kind(const std::string& what, const std::string& where) {
  throw Error(Code::kData, fmt::format("the tokenizer has {}", what), where,
              "Lehr reads byte-level BPE, as of GPT-2 and Llama 3: convert the text with the "
              "tokenizer's own library, or take another tokenizer.");
}

std::string type_of(const Json& part) {
  return part.is_object() ? part.value("type", "") : part.is_null() ? "none" : "";
}

// the regular expression of one pre-tokenizer; "" where it only turns bytes into letters
std::string pattern_of(const Json& part, const std::string& where) {
  const std::string type = type_of(part);
  if (type == "ByteLevel") {
    if (part.value("add_prefix_space", true))
      other_kind("a pre-tokenizer that adds a space before the text (add_prefix_space)", where);
    return part.value("use_regex", true) ? kGpt2Pattern : "";
  }
  if (type == "Split") {
    const Json& pattern = part.at("pattern");
    if (!pattern.contains("Regex") || part.value("behavior", "") != "Isolated" ||
        part.value("invert", false))
      other_kind("a Split pre-tokenizer that is no regular expression of isolated words", where);
    return pattern.at("Regex").get<std::string>();
  }
  other_kind(fmt::format("the pre-tokenizer '{}'", type), where);
}

// the ids that a post-processor puts before every text
Tokens begin_of(const Json& part, const std::string& where) {
  const std::string type = type_of(part);
  Tokens begin;
  if (type == "none" || type == "ByteLevel") return begin;  // offsets only
  if (type == "Sequence") {
    for (const Json& one : part.at("processors"))
      for (uint32_t id : begin_of(one, where)) begin.push_back(id);
    return begin;
  }
  auto refuse = [&](const std::string& what) {
    throw Error(Code::kData, "the tokenizer has " + what, where,
                "Lehr reads a post_processor that puts tokens before a text, and ends documents "
                "itself: take the rest out of it (null: none).");
  };
  if (type != "TemplateProcessing") refuse(fmt::format("the post-processor '{}'", type));
  bool before = true;
  for (const Json& piece : part.at("single")) {
    if (!piece.contains("SpecialToken")) {
      before = false;
      continue;
    }
    const auto name = piece.at("SpecialToken").at("id").get<std::string>();
    if (!before) refuse(fmt::format("a post-processor that puts {} behind every text", name));
    for (const Json& id : part.at("special_tokens").at(name).at("ids"))
      begin.push_back(id.get<uint32_t>());
  }
  return begin;
}

std::vector<AddedToken> added_of(const Json& list, const std::string& where) {
  std::vector<AddedToken> added;
  std::unordered_map<std::string, uint32_t> ids;
  for (const Json& token : list) {
    AddedToken one{token.at("content").get<std::string>(), token.at("id").get<uint32_t>(),
                   token.value("special", true),           token.value("single_word", false),
                   token.value("lstrip", false),           token.value("rstrip", false),
                   token.value("normalized", false)};
    if (one.content.empty() || one.id >= kMostIds)
      throw Error(Code::kData, fmt::format("the added token '{}' has id {}", one.content, one.id),
                  where);
    if (!ids.emplace(one.content, one.id).second)
      throw Error(Code::kData, fmt::format("the added token '{}' is there twice", one.content),
                  where, "Take one of the two out.");
    added.push_back(std::move(one));
  }
  return added;
}

Json post_processor(const BpeParts& parts) {
  if (parts.begin.empty()) return {};
  auto sequence = [](const char* id, int type) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  Json single = Json::array(), special = Json::object();
  for (uint32_t id : parts.begin) {
    std::string name = id < parts.tokens.size() ? to_letters(parts.tokens[id]) : "";
    for (const AddedToken& token : parts.added)
      if (token.id == id) name = token.content;
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    special[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  }
  single.push_back(sequence("A", 0));
  Json pair = single;
  pair.push_back(sequence("B", 1));
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special}};
}

}  // namespace

BpeParts rank_parts(std::string_view text, const std::string& pattern, const std::string& where) {
  BpeParts parts;
  int64_t line = 0;
  for (size_t begin = 0; begin < text.size();) {
    ++line;
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view row = text.substr(begin, end - begin);
    begin = end + 1;
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.empty()) continue;
    const std::string place = fmt::format("{}:{}", where, line);
    const size_t space = row.find(' ');
    uint32_t rank = 0;
    std::optional<std::string> bytes;
    if (space != row.npos) {
      bytes = from_base64(row.substr(0, space));
      const char* last = row.data() + row.size();
      const auto [stop, error] = std::from_chars(row.data() + space + 1, last, rank);
      if (stop != last || error != std::errc()) bytes.reset();
    }
    if (!bytes)
      throw Error(Code::kData, "not a token in base64, a space and its rank", place,
                  "A .tiktoken file has one such line for each token, as `IQ== 0`.");
    if (rank >= kMostIds) throw Error(Code::kData, fmt::format("rank {} is too high", rank), place);
    if (parts.tokens.size() <= rank) parts.tokens.resize(rank + 1);
    if (!parts.tokens[rank].empty())
      throw Error(Code::kData, fmt::format("rank {} is there twice", rank), place);
    parts.tokens[rank] = std::move(*bytes);
  }
  if (parts.tokens.empty()) throw Error(Code::kData, "there are no ranks in it", where);
  // two tokens merge where both together are one
  std::unordered_map<std::string_view, uint32_t> ranks;
  for (uint32_t id = 0; id < parts.tokens.size(); ++id)
    if (!parts.tokens[id].empty() && !ranks.emplace(parts.tokens[id], id).second)
      throw Error(Code::kData, fmt::format("rank {} has the bytes of a token before it", id),
                  where);
  for (const auto& [token, id] : ranks) {
    for (size_t cut = 1; cut < token.size(); ++cut) {
      auto left = ranks.find(token.substr(0, cut)), right = ranks.find(token.substr(cut));
      if (left != ranks.end() && right != ranks.end())
        parts.merges.push_back({left->second, right->second, id, id});
    }
  }
  parts.pattern = pattern == "llama3" ? kLlama3Pattern : kGpt2Pattern;
  parts.added = special_after(pattern, static_cast<uint32_t>(parts.tokens.size()));
  parts.whole_words = true;
  return parts;
}

std::shared_ptr<const Tokenizer> parse_ranks(std::string_view text, const std::string& pattern,
                                             const std::string& where) {
  return make_bpe(rank_parts(text, pattern, where), where);
}

std::shared_ptr<const Tokenizer> parse_bpe(const Json& json, const std::string& where) try {
  if (!json.contains("model"))
    throw Error(Code::kData, "there is no tokenizer in it (no `model`)", where,
                "Give Hugging Face's tokenizer.json, not its tokenizer_config.json or vocab.json.");
  const Json& model = json.at("model");
  const std::string type = model.contains("type") ? type_of(model) : "BPE";
  if (type != "BPE") other_kind(fmt::format("a model of type {}", type), where);
  if (json.contains("normalizer") && !json["normalizer"].is_null())
    other_kind(fmt::format("the normalizer '{}'", type_of(json["normalizer"])), where);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (model.contains(key) && model[key].is_string() && !model[key].get<std::string>().empty())
      other_kind(fmt::format("a {}", key), where);
  if (model.value("byte_fallback", false)) other_kind("byte_fallback", where);

  BpeParts parts;
  const Json none, &before = json.contains("pre_tokenizer") ? json["pre_tokenizer"] : none;
  parts.pattern.clear();
  if (type_of(before) == "Sequence") {
    for (const Json& part : before.at("pretokenizers")) {
      const std::string pattern = pattern_of(part, where);
      if (!pattern.empty() && !parts.pattern.empty())
        other_kind("two patterns that split text, one after the other", where);
      if (!pattern.empty()) parts.pattern = pattern;
    }
  } else {
    parts.pattern = pattern_of(before, where);
  }
  if (parts.pattern.empty()) other_kind("no pattern that splits text into words", where);

  parts.added = added_of(json.value("added_tokens", Json::array()), where);
  std::unordered_map<std::string, uint32_t> added;
  for (const AddedToken& token : parts.added) added.emplace(token.content, token.id);
  std::unordered_map<std::string, uint32_t> ids;  // by the letters of the file
  for (const auto& [text, value] : model.at("vocab").items()) {
    const auto id = value.get<uint32_t>();
    if (id >= kMostIds)
      throw Error(Code::kData, fmt::format("the token '{}' has id {}", text, id), where);
    const auto same = added.find(text);
    if (same != added.end() && same->second != id)
      throw Error(Code::kData,
                  fmt::format("the added token '{}' has id {}, and in the vocabulary {}", text,
                              same->second, id),
                  where, "Give it the id that the model was trained with.");
    auto bytes = from_letters(text);
    if (!bytes || bytes->empty()) {
      if (same != added.end()) continue;  // found in texts as it is, never made by merges
      other_kind(fmt::format("the token '{}', which is not bytes written as letters", text), where);
    }
    if (parts.tokens.size() <= id) parts.tokens.resize(id + 1);
    if (!parts.tokens[id].empty())
      throw Error(Code::kData, fmt::format("two tokens have id {}", id), where);
    parts.tokens[id] = std::move(*bytes);
    ids.emplace(text, id);
  }
  for (const AddedToken& token : parts.added)
    if (token.id < parts.tokens.size() && !parts.tokens[token.id].empty() &&
        to_letters(parts.tokens[token.id]) != token.content)
      throw Error(Code::kData, fmt::format("two tokens have id {}", token.id), where);
  parts.begin = begin_of(json.value("post_processor", Json()), where);
  uint32_t number = 0;
  for (const Json& merge : model.at("merges")) {
    std::string left, right;
    if (merge.is_array() && merge.size() == 2) {
      left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
    } else {
      const auto both = merge.get<std::string>();
      const size_t space = both.find(' ');
      left = both.substr(0, space), right = space == both.npos ? "" : both.substr(space + 1);
    }
    const auto a = ids.find(left), b = ids.find(right), c = ids.find(left + right);
    if (a == ids.end() || b == ids.end() || c == ids.end())
      throw Error(
          Code::kData,
          fmt::format("merge {} ('{}', '{}') is not of tokens to a token", number, left, right),
          where, "The file is damaged: fetch it again.");
    parts.merges.push_back({a->second, b->second, c->second, number++});
  }
  parts.whole_words = model.value("ignore_merges", false);
  return make_bpe(std::move(parts), where);
} catch (const Json::exception& error) {
  throw Error(Code::kData, "not a tokenizer.json of a byte-level BPE", where, error.what());
}

BpeParts byte_parts(bool end_of_text) {
  BpeParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.tokens.emplace_back(1, static_cast<char>(byte));
  if (end_of_text) parts.added = special_after("gpt2", 256);
  return parts;
}

std::string write_bpe(const BpeParts& parts) {
  auto quoted = [](const std::string& text) { return Json(text).dump(); };
  // by hand where it is long: ids and merges in order, as readers and people expect them
  std::vector<std::string> names(parts.tokens.size());
  for (size_t id = 0; id < names.size(); ++id) names[id] = to_letters(parts.tokens[id]);
  // Other readers take an added token's id from the vocabulary, and count on from the vocabulary's
  // size where it has none: those that would get another id so stand in it.
  auto next = static_cast<uint32_t>(std::count_if(
      names.begin(), names.end(), [](const std::string& name) { return !name.empty(); }));
  bool counted_on = true;
  for (const AddedToken& token : parts.added)
    if (token.id >= names.size() || names[token.id].empty())
      counted_on = counted_on && token.id == next++;
  Json added = Json::array();
  for (const AddedToken& token : parts.added) {
    if (!counted_on && names.size() <= token.id) names.resize(token.id + 1);
    if (!counted_on) names[token.id] = token.content;
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  std::string vocab, merges;
  for (size_t id = 0; id < names.size(); ++id)
    if (!names[id].empty())
      vocab += fmt::format("{}{}: {}", vocab.empty() ? "" : ", ", quoted(names[id]), id);
  for (const Merge& merge : one_merge_a_token(parts))
    merges += fmt::format("{}[{}, {}]", merges.empty() ? "" : ", ",
                          quoted(to_letters(parts.tokens[merge.left])),
                          quoted(to_letters(parts.tokens[merge.right])));
  const Json letters{{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", true},
                     {"use_regex", false}};
  const Json split{{"type", "Split"},
                   {"pattern", {{"Regex", parts.pattern}}},
                   {"behavior", "Isolated"},
                   {"invert", false}};
  const Json before{{"type", "Sequence"}, {"pretokenizers", {split, letters}}};
  return fmt::format(
      R"({{"version": "1.0", "truncation": null, "padding": null, "added_tokens": {}, )"
      R"("normalizer": null, "pre_tokenizer": {}, "post_processor": {}, "decoder": {}, )"
      R"("model": {{"type": "BPE", "dropout": null, "unk_token": null, )"
      R"("continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, )"
      R"("byte_fallback": false, "ignore_merges": {}, "vocab": {{{}}}, "merges": [{}]}}}})",
      added.dump(), before.dump(), post_processor(parts).dump(), letters.dump(), parts.whole_words,
      vocab, merges);
}

}  // namespace lehr::data
