// Tokenizers: nothing is lost, other programs' ids are ours, and what cannot be read is named.
#include "engine/data/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/data/bpe.h"
#include "engine/data/bytes.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

using Json = nlohmann::json;

std::string base64(const std::string& bytes) {
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0);
    for (int k = 0; k < 4; ++k)
      text += i + static_cast<size_t>(k) > bytes.size() ? '=' : digits[bits >> (18 - 6 * k) & 63];
  }
  return text;
}

// ranks of all bytes and of the given tokens after them
std::string ranks(const std::vector<std::string>& tokens) {
  std::string text;
  for (int b = 0; b < 256; ++b)
    text += base64(std::string(1, static_cast<char>(b))) + " " + std::to_string(b) + "\n";
  for (size_t i = 0; i < tokens.size(); ++i)
    text += base64(tokens[i]) + " " + std::to_string(256 + i) + "\n";
  return text;
}

std::shared_ptr<const Tokenizer> small(const std::vector<std::string>& tokens) {
  return parse_ranks(ranks(tokens), "gpt2", "small.tiktoken");
}

TEST(ByteTokenizer, GivesEachByteItsNumber) {
  const std::string text = noise(5000);
  auto plain = byte_tokenizer(false), ended = byte_tokenizer(true);
  const Tokens ids = plain->encode(text);
  for (size_t i = 0; i < text.size(); ++i) ASSERT_EQ(ids[i], static_cast<uint8_t>(text[i]));
  EXPECT_EQ(plain->decode(ids), text);
  EXPECT_EQ(plain->vocabulary(), 256);
  EXPECT_EQ(ended->vocabulary(), 257);
  EXPECT_EQ(ended->encode("a<|endoftext|>b", true), (Tokens{'a', 256, 'b'}));
  EXPECT_EQ(ended->encode("a<|endoftext|>b").size(), 15u);
  EXPECT_EQ(ended->decode({'a', 256, 'b'}), "a<|endoftext|>b");
  EXPECT_TRUE(holds(error_of([&] { plain->decode({256}); }).what(), "no token 256"));
}

TEST(CharTokenizer, NumbersCharactersInTheirOrder) {
  auto chars = char_tokenizer("hello w\xc3\xb6rld \xf0\x9f\x98\x80\xe2\x82\xac", false, "text");
  EXPECT_EQ(chars->vocabulary(), 11);
  EXPECT_EQ(chars->encode(" d\xc3\xb6\xe2\x82\xac\xf0\x9f\x98\x80"), (Tokens{0, 1, 8, 9, 10}));
  EXPECT_EQ(chars->decode({10, 9, 8}), "\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xb6");
  EXPECT_TRUE(holds(error_of([&] { chars->encode("hex"); }).what(), "U+0078"));
}

TEST(CharTokenizer, TakesNothingThatIsNotUtf8) {
  // a lone continuation, overlong forms, half of a pair, beyond Unicode, cut short
  for (const char* bad : {"\x80", "\xc0\xaf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\xc3"}) {
    EXPECT_EQ(code_point(bad, 0).bytes, 0) << bad;
    EXPECT_TRUE(
        holds(error_of([&] { char_tokenizer(std::string("ab") + bad, false, "t.txt"); }).where(),
              "t.txt at byte 2"));
  }
  for (uint32_t code :
       {0u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xd7ffu, 0xe000u, 0xffffu, 0x10000u, 0x10ffffu}) {
    std::string text;
    append_utf8(code, text);
    EXPECT_EQ(code_point(text, 0).value, code);
    EXPECT_EQ(code_point(text, 0).bytes, static_cast<int>(text.size()));
  }
}

TEST(Tokenizer, IsMadeAgainFromItsJson) {
  const std::string text = "low lower lowest\n\n  newest \xc3\xa9 <|endoftext|> 12";
  for (bool end : {false, true})
    for (const auto& one : {byte_tokenizer(end), char_tokenizer(text, end, "text"),
                            small({"lo", "low", "es", "est"})}) {
      auto again = parse_tokenizer(one->json(), "json");
      EXPECT_EQ(again->kind(), one->kind());
      EXPECT_EQ(again->json(), one->json());
      EXPECT_EQ(again->vocabulary(), one->vocabulary());
      EXPECT_EQ(again->end_of_text(), one->end_of_text());
      for (bool special : {false, true}) {
        EXPECT_EQ(again->encode(text, special), one->encode(text, special));
        EXPECT_EQ(one->decode(one->encode(text, special)), text);
      }
    }
}

TEST(Bpe, MergesTheLowestRankFirstAndTheLeftmostOfTheSame) {
  auto bpe = small({"ab", "bc", "abc", "aa", "abcd"});
  EXPECT_EQ(bpe->encode("abc"), (Tokens{258}));
  EXPECT_EQ(bpe->encode("bcx"), (Tokens{257, 'x'}));
  EXPECT_EQ(bpe->encode("xabcx"), (Tokens{'x', 258, 'x'}));  // ab before bc
  EXPECT_EQ(bpe->encode("aaax"), (Tokens{259, 'a', 'x'}));   // the left two
  EXPECT_EQ(bpe->encode("ab bc"), (Tokens{256, ' ', 257}));  // a space begins a word
  EXPECT_EQ(bpe->vocabulary(), 262);
  EXPECT_EQ(bpe->end_of_text(), 261u);
  EXPECT_EQ(bpe->encode("<|endoftext|>", true), (Tokens{261}));
  EXPECT_EQ(bpe->encode("<|endoftext|>").size(), 13u);
  EXPECT_EQ(bpe->decode({256, 261, 260}), "ab<|endoftext|>abcd");
}

// what merging means, one merge at a time
Tokens merged_slowly(const std::string& word, const std::vector<std::string>& tokens) {
  std::vector<std::string> parts;
  for (char c : word) parts.emplace_back(1, c);
  auto rank = [&](const std::string& s) {
    auto found = std::find(tokens.begin(), tokens.end(), s);
    return found == tokens.end() ? size_t{9999} : static_cast<size_t>(found - tokens.begin());
  };
  for (;;) {
    size_t best = 0, lowest = 9999;
    for (size_t i = 0; i + 1 < parts.size(); ++i)
      if (rank(parts[i] + parts[i + 1]) < lowest) lowest = rank(parts[i] + parts[i + 1]), best = i;
    if (lowest == 9999) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<int64_t>(best) + 1);
  }
  Tokens ids;
  for (const auto& part : parts)
    ids.push_back(part.size() == 1 ? static_cast<uint8_t>(part[0])
                                   : static_cast<uint32_t>(256 + rank(part)));
  return ids;
}

TEST(Bpe, MergesLongWordsAsItMergesShortOnes) {
  const std::vector<std::string> tokens = {"ab",  "ba",  "aa",   "abab", "bb",
                                           "aab", "abb", "baba", "aaaa", "ababab"};
  auto bpe = small(tokens);
  Random random(3, Stream::kTest, 0);
  for (int round = 0; round < 400; ++round) {
    std::string word(1 + random.below(200), 'a');
    for (char& c : word) c = static_cast<char>('a' + random.below(2));
    if (std::find(tokens.begin(), tokens.end(), word) != tokens.end()) continue;
    ASSERT_EQ(bpe->encode(word), merged_slowly(word, tokens)) << word;
  }
}

TEST(Bpe, FindsAddedTokensThatAreNotSpecialInEveryText) {
  BpeParts parts = byte_parts(true);
  parts.added.push_back({"<m>", 257, false});
  parts.added.push_back({"<m>s", 258, false});
  parts.added.push_back({"word", 259, false, true});
  parts.added.push_back({"[l]", 260, false, false, true, false});
  parts.added.push_back({"[r]", 261, false, false, false, true, true});
  const auto bpe = make_bpe(parts, "added");
  const Tokens m = {'a', 257, 'b'};
  EXPECT_EQ(bpe->encode("a<m>b"), m);
  EXPECT_EQ(bpe->encode("<m>s<m>"), (Tokens{258, 257}));  // the longest
  EXPECT_EQ(bpe->encode("word words,word"), (Tokens{259, ' ', 'w', 'o', 'r', 'd', 's', ',', 259}));
  EXPECT_EQ(bpe->encode("a \n[l] b"), (Tokens{'a', 260, ' ', 'b'}));
  EXPECT_EQ(bpe->encode("a [r]\xe3\x80\x80 b"), (Tokens{'a', ' ', 261, 'b'}));
  EXPECT_EQ(bpe->encode("<|endoftext|>").size(), 13u);  // special: text like any other
  EXPECT_EQ(bpe->encode("<|endoftext|><m>", true), (Tokens{256, 257}));
  EXPECT_EQ(bpe->decode({257, 259}), "<m>word");
  const auto sizes = bpe->sizes();
  EXPECT_EQ(sizes[256], 0);
  EXPECT_EQ(sizes[257], 3);
}

TEST(Bpe, KeepsAddedTokensAndTheBeginTokenWithTheirFlags) {
  BpeParts parts = byte_parts(true);
  parts.added.push_back({"<m>", 259, false, true, true, false, true});
  parts.added.push_back({"<s>", 258, true, false, false, true, false});
  parts.begin = {258};
  const auto one = make_bpe(parts, "parts");
  const auto again = parse_tokenizer(one->json(), "json");
  EXPECT_EQ(again->json(), one->json());
  EXPECT_EQ(again->begin_of_text(), (Tokens{258}));
  EXPECT_EQ(again->sizes()[257], Tokenizer::kNoToken);
  const Json json = Json::parse(one->json());
  // other readers take ids from there
  EXPECT_EQ(json["model"]["vocab"]["<s>"], 258);
  EXPECT_EQ(json["added_tokens"][2]["single_word"], true);
  EXPECT_EQ(json["added_tokens"][2]["lstrip"], true);
  EXPECT_EQ(json["added_tokens"][2]["special"], false);
  EXPECT_EQ(json["added_tokens"][2]["normalized"], true);
  EXPECT_EQ(json["added_tokens"][1]["rstrip"], true);
  EXPECT_TRUE(same_tokenizer(one->json(), json.dump(2)));
  EXPECT_FALSE(same_tokenizer(one->json(), byte_tokenizer(true)->json()));
}

TEST(Bpe, ReadsAByteOrderMarkAndNamesWhatIsNoTokenizer) {
  TempFolder folder;
  const std::string json = small({"ab"})->json();
  const TokenizerChoice choice{"bpe", folder.write("t.json", "\xef\xbb\xbf" + json)};
  EXPECT_EQ(make_tokenizer(choice, "", "")->json(), json);
  const TokenizerChoice pointer{"bpe",
                                folder.write("p.json", "version https://git-lfs.github.com")};
  EXPECT_TRUE(holds(error_of([&] { make_tokenizer(pointer, "", ""); }).what(), "git lfs pull"));
}

// what whole() gives may be encoded apart from what follows, wherever a text is cut
TEST(Tokenizer, WholeIsWhereATextMayBeCut) {
  const std::vector<std::string> pieces = {
      "ab",   "abc ", " ",    "\n\n", "\xc3\xa9", "\xe2\x82\xac",     "\xff", "12345", "'ll ",
      "\r\n", "  x",  "\t\t", "...",  "\xe2\x82", "\xf0\x9f\x98\x80", "it's"};
  BpeParts ranks_of_llama = rank_parts(ranks({"ab", "abc", " a", "\n\n", "12"}), "llama3", "r");
  const std::shared_ptr<const Tokenizer> tokenizers[] = {
      byte_tokenizer(true), small({"ab", "abc", "  ", "\xc3\xa9"}), make_bpe(ranks_of_llama, "r"),
      char_tokenizer("abcx \n\r\t.'lits12345\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", true, "a")};
  Random random(9, Stream::kTest, 0);
  int64_t taken = 0, all = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto& tokenizer = *tokenizers[round % 4];
    std::string text;
    for (uint32_t i = 2 + random.below(12); i > 0; --i) {
      const std::string& piece = pieces[random.below(16)];
      if (tokenizer.kind() != "char" || code_point(piece, 0).bytes > 0) text += piece;
    }
    const Tokens wanted = tokenizer.encode(text);
    for (size_t size = 0; size <= text.size(); ++size) {
      const size_t cut = tokenizer.whole(std::string_view(text).substr(0, size));
      ASSERT_LE(cut, size);
      Tokens ids = tokenizer.encode(text.substr(0, cut));
      tokenizer.encode(text.substr(cut), ids);
      ASSERT_EQ(ids, wanted)
          << tokenizer.kind() << round % 4 << " "
          << Json(noise(0) + text).dump(-1, ' ', true, Json::error_handler_t::replace) << " at "
          << cut << " of " << size;
      taken += static_cast<int64_t>(cut), all += static_cast<int64_t>(size);
    }
  }
  EXPECT_GT(static_cast<double>(taken) / static_cast<double>(all), 0.7);
  // tokens that are found in every text could lie across a cut; so could what a pattern looks back
  // at
  BpeParts added = byte_parts(false);
  added.added.push_back({"<m>", 256, false});
  EXPECT_EQ(make_bpe(added, "added")->whole("abc def ghi"), 0u);
  BpeParts behind = byte_parts(false);
  behind.pattern = R"((?<=a)b|\p{L}+|\s+)";
  EXPECT_EQ(make_bpe(behind, "behind")->whole("abc def ghi"), 0u);
}

TEST(Bpe, LosesNoByteOfAnything) {
  auto bpe = small({"ab", "\xc3\xa9", " \xc3\xa9", "\xff\xfe", "\xe2\x82", "  "});
  Random random(4, Stream::kTest, 0);
  const std::vector<std::string> pieces = {"ab",
                                           "\xc3\xa9",
                                           " ",
                                           "\xff\xfe",
                                           "\xe2\x82",
                                           "\xe2\x82\xac",
                                           "\n",
                                           "'ll",
                                           "\xed\xa0\x80",
                                           "<|endoftext|>",
                                           std::string(1, '\0')};
  for (int round = 0; round < 3000; ++round) {
    std::string text = round % 3 == 0 ? noise(random.below(60), static_cast<uint64_t>(round)) : "";
    for (uint32_t i = random.below(12); i > 0; --i) text += pieces[random.below(11)];
    for (bool special : {false, true})
      ASSERT_EQ(bpe->decode(bpe->encode(text, special)), text) << round;
  }
}

// Eight times the text in some eight times the processor's time: a quadratic one takes 64 times.
TEST(Bpe, TakesTextWithoutASpaceInItsStride) {
  auto bpe = small({"ab", "abab", "abababab", "aa", "aaaa", "zz"});
  const auto shortest_of_three = [&](const std::string& text) {
    std::clock_t shortest = std::numeric_limits<std::clock_t>::max();
    for (int i = 0; i < 3; ++i) {
      const std::clock_t begin = std::clock();
      const Tokens ids = bpe->encode(text);
      shortest = std::min(shortest, std::clock() - begin);
      EXPECT_EQ(bpe->decode(ids), text);
    }
    return static_cast<double>(shortest);
  };
  for (const std::string unit : {"ab", "a", " ", "\n", "\xff", "-", "7"}) {
    std::string text;
    while (text.size() < 1 << 18) text += unit;
    EXPECT_LT(shortest_of_three(text), 24 * shortest_of_three(text.substr(0, 1 << 15))) << unit;
  }
}

// the JSON of a small tokenizer, with one thing changed
std::string changed(const std::function<void(Json&)>& change) {
  Json json = Json::parse(small({"ab", "abc"})->json());
  change(json);
  return json.dump();
}

TEST(Bpe, RefusesOtherTokenizersByName) {
  const std::vector<std::pair<std::string, std::function<void(Json&)>>> cases = {
      {"WordPiece", [](Json& j) { j["model"]["type"] = "WordPiece"; }},
      {"Unigram", [](Json& j) { j["model"]["type"] = "Unigram"; }},
      {"NFC",
       [](Json& j) {
         j["normalizer"] = {{"type", "NFC"}};
       }},
      {"Metaspace",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "Metaspace"}};
       }},
      {"none", [](Json& j) { j["pre_tokenizer"] = nullptr; }},
      {"RobertaProcessing",
       [](Json& j) {
         j["post_processor"] = {{"type", "RobertaProcessing"}};
       }},
      {"</s> behind every text",
       [](Json& j) {
         j["post_processor"] = {
             {"type", "TemplateProcessing"},
             {"single",
              {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
               {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
             {"special_tokens", {{"</s>", {{"id", "</s>"}, {"ids", {5}}, {"tokens", {"</s>"}}}}}}};
       }},
      {"add_prefix_space",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
       }},
      {"byte_fallback", [](Json& j) { j["model"]["byte_fallback"] = true; }},
      {"end_of_word_suffix", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
      {"\xe2\x96\x81the", [](Json& j) { j["model"]["vocab"]["\xe2\x96\x81the"] = 300; }},
      {"no `model`", [](Json& j) { j.erase("model"); }},
      {"lehr_word", [](Json& j) { j["type"] = "lehr_word", j["version"] = 1; }}};
  for (const auto& [name, change] : cases) {
    const Error error = error_of([&] { parse_tokenizer(changed(change), "t.json"); });
    EXPECT_EQ(error.code(), Code::kData);
    EXPECT_TRUE(holds(error.what(), name)) << error.what();
    EXPECT_TRUE(holds(error.where(), "t.json")) << error.what();
    EXPECT_FALSE(error.hint().empty());
  }
}

TEST(Bpe, NamesWhatIsWrongWithAFile) {
  auto of_json = [](const std::function<void(Json&)>& change) {
    return std::string(error_of([&] { parse_tokenizer(changed(change), "t.json"); }).what());
  };
  EXPECT_TRUE(holds(of_json([](Json& j) {
                      j["model"]["merges"][1] = {"ab", "q"};
                    }),
                    "merge 1 ('ab', 'q')"));
  EXPECT_TRUE(
      holds(of_json([](Json& j) { j["model"]["vocab"].erase("c"); }), "merge 1 ('ab', 'c')"));
  EXPECT_TRUE(
      holds(of_json([](Json& j) { j["model"]["vocab"].erase("z"); }), "no token for byte 122"));
  EXPECT_TRUE(
      holds(of_json([](Json& j) { j["model"]["vocab"]["z"] = "y"; }), "not a tokenizer.json"));
  EXPECT_TRUE(
      holds(of_json([](Json& j) { j["model"]["vocab"]["z"] = 1 << 30; }), "has id 1073741824"));
  EXPECT_TRUE(
      holds(of_json([](Json& j) { j["model"]["vocab"]["z"] = 97; }), "two tokens have id 97"));
  EXPECT_TRUE(holds(
      of_json([](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; }),
      "split pattern (a"));
  EXPECT_TRUE(holds(of_json([](Json& j) { j["model"]["vocab"][kEndOfText] = 300; }),
                    "has id 258, and in the vocabulary 300"));
  EXPECT_TRUE(holds(of_json([](Json& j) {
                      j["added_tokens"][0]["content"] = "<x>", j["added_tokens"][0]["id"] = 97;
                    }),
                    "two tokens have id 97"));
  EXPECT_TRUE(
      holds(error_of([] { parse_tokenizer("{\"a\": }", "t.json"); }).where(), "t.json at byte 7"));
  auto of_ranks = [](const std::string& text) {
    const Error error = error_of([&] { parse_ranks(text, "gpt2", "r.tiktoken"); });
    return std::string(error.what());
  };
  EXPECT_TRUE(holds(of_ranks("IQ== 0\nIg==\n"), "r.tiktoken:2"));
  EXPECT_TRUE(holds(of_ranks("IQ== 0\nI!== 1\n"), "r.tiktoken:2"));
  EXPECT_TRUE(holds(of_ranks("IQ== 0\nIg== 0\n"), "rank 0 is there twice"));
  EXPECT_TRUE(holds(of_ranks("IQ== 0\nIQ== 1\n"), "rank 1 has the bytes"));
  EXPECT_TRUE(holds(of_ranks("IQ== 99999999\n"), "too high"));
  EXPECT_TRUE(holds(of_ranks("IQ== 0\n"), "no token for byte"));
  EXPECT_TRUE(holds(of_ranks(""), "no ranks"));
}

const std::string kRanks = LEHR_SOURCE_DIR "/.data/gpt2_tokenizer/gpt2.tiktoken.gz";
const std::string kPython = LEHR_SOURCE_DIR "/.deps/venv/bin/python";

std::vector<std::string> read_strings(const std::string& path) {
  const std::string file = read_text(path);
  std::vector<std::string> strings;
  for (size_t at = 0; at < file.size();) {
    uint32_t length;
    std::memcpy(&length, file.data() + at, 4);
    strings.push_back(file.substr(at + 4, length));
    at += 4 + length;
  }
  return strings;
}

std::vector<Tokens> read_ids(const std::string& path) {
  const std::string file = read_text(path);
  std::vector<Tokens> all;
  for (size_t at = 0; at < file.size();) {
    uint32_t length;
    std::memcpy(&length, file.data() + at, 4);
    Tokens& ids = all.emplace_back(length);
    std::memcpy(ids.data(), file.data() + at + 4, length * 4);
    at += 4 + length * 4;
  }
  return all;
}

// Tokenizers of GPT-2's ranks and both patterns, and the judges' answers to random strings.
class BpeJudged : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::ifstream(kRanks).good())
      GTEST_SKIP() << "scripts/data gpt2_tokenizer fetches " << kRanks;
    if (!std::ifstream(kPython).good()) GTEST_SKIP() << "no " << kPython;
    const Bytes file = read_bytes(kRanks);
    const std::string text(reinterpret_cast<const char*>(file.begin()), file.size);
    for (const char* name : {"gpt2", "llama3"}) {
      // no more special tokens than the judges have
      BpeParts parts = rank_parts(text, name, kRanks);
      parts.added = {{kEndOfText, 50256}};
      ours[name] = make_bpe(std::move(parts), kRanks);
      folder.write(std::string("ours_") + name + ".json", ours[name]->json());
    }
    EXPECT_EQ(parse_ranks(text, "gpt2", kRanks)->vocabulary(), 50257);
  }
  void ask(const std::string& seed) {
    const std::string command = kPython + " " LEHR_SOURCE_DIR "/tests/data/tokenizer_peer.py " +
                                kRanks + " " + folder.path() + " 100000 " + seed;
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    strings = read_strings(folder.path("strings.bin"));
    ASSERT_GT(strings.size(), 100000u);
  }
  void compare(const Tokenizer& tokenizer, const std::string& judge, bool special) {
    const auto expected = read_ids(folder.path(judge + ".bin"));
    ASSERT_EQ(expected.size(), strings.size());
    int64_t wrong = 0;
    for (size_t i = 0; i < strings.size(); ++i) {
      const Tokens ids = tokenizer.encode(strings[i], special);
      if (ids != expected[i] && ++wrong <= 5)
        ADD_FAILURE() << judge << ": string " << i << ": " << Json(strings[i]).dump(-1, ' ', true)
                      << " gives " << Json(ids).dump() << ", not " << Json(expected[i]).dump();
      ASSERT_EQ(tokenizer.decode(ids), strings[i]);
    }
    EXPECT_EQ(wrong, 0) << judge;
  }
  void compare_with_tiktoken() {
    compare(*ours["gpt2"], "tiktoken_plain", false);
    for (const std::string name : {"gpt2", "llama3"})
      compare(*ours[name], "tiktoken_" + name, true);
  }
  TempFolder folder;
  std::map<std::string, std::shared_ptr<const Tokenizer>> ours;
  std::vector<std::string> strings;
};

TEST_F(BpeJudged, GivesTheIdsOfTiktokenAndHuggingFace) {
  ask("");
  compare_with_tiktoken();
  for (const std::string name : {"gpt2", "llama3"}) {
    compare(*ours[name], "ours_" + name, true);  // Hugging Face reads what we wrote
    const std::string path = folder.path("theirs_" + name + ".json");
    compare(*parse_tokenizer(read_text(path), path), "theirs_" + name, true);
    compare(*parse_tokenizer(ours[name]->json(), "ours"), "ours_" + name, true);
  }
}

// added tokens of random flags, special first or last, beside tokenizers: from its file and from
// ours
TEST(AddedTokensJudged, GiveTheIdsOfHuggingFace) {
  if (!std::ifstream(kPython).good()) GTEST_SKIP() << "no " << kPython;
  TempFolder folder;
  const std::string command =
      kPython + " " LEHR_SOURCE_DIR "/tests/data/tokenizer_peer.py added " + folder.path() + " ";
  ASSERT_EQ(std::system((command + "make").c_str()), 0);
  const auto strings = read_strings(folder.path("strings.bin"));
  ASSERT_GT(strings.size(), 1000u);
  for (int kind = 0; kind < 6; ++kind) {
    const std::string name = std::to_string(kind);
    const auto theirs = parse_tokenizer(read_text(folder.path(name + ".json")), name);
    folder.write("ours_" + name + ".json", theirs->json());
    for (const bool special : {false, true}) {
      const auto expected = read_ids(folder.path(name + (special ? "_special.bin" : "_plain.bin")));
      ASSERT_EQ(expected.size(), strings.size());
      for (size_t i = 0; i < strings.size(); ++i) {
        Tokens ids = theirs->begin_of_text();
        theirs->encode(strings[i], ids, special);
        ASSERT_EQ(ids, expected[i])
            << name << special << " " << Json(strings[i]).dump(-1, ' ', true);
      }
    }
  }
  // and what we wrote gives them there
  EXPECT_EQ(std::system((command + "check").c_str()), 0);
}

TEST_F(BpeJudged, GivesTheIdsOfTiktokenForMillionsOfStrings) {
  const char* millions = std::getenv("LEHR_SOAK_STRINGS");
  if (!millions) GTEST_SKIP() << "scripts/soak strings runs it";
  int64_t tried = 0;
  for (int seed = 2; tried < std::atoll(millions) && !HasFailure(); ++seed) {
    ask(std::to_string(seed));
    compare_with_tiktoken();
    tried += static_cast<int64_t>(strings.size());
  }
  std::printf("%lld strings\n", static_cast<long long>(tried));
}

}  // namespace
}  // namespace lehr::data
