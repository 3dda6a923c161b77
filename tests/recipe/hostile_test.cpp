// Files that want to hang, crash or fill the memory: each ends soon with an error.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <ctime>

#include "engine/recipe/recipe.h"
#include "tests/recipe/sample.h"
#include "tests/recipe/support.h"

namespace lehr::recipe {
namespace {

constexpr size_t kMiB = 1 << 20;

std::string times(const std::string& unit, size_t bytes = kMiB) {
  std::string text;
  text.reserve(bytes);
  while (text.size() + unit.size() <= bytes) text += unit;
  return text;
}

// The mistakes of a file, which come within five seconds of this process's own time: a tenth of one
// is what they take.
std::string timed(const std::string& path) {
  const std::clock_t start = std::clock();
  auto mistakes = mistakes_of([&] { Recipe::load(path, {}, sample::sections()); });
  EXPECT_LT(std::clock() - start, 5 * CLOCKS_PER_SEC) << path;
  return replaced(mistakes, path, "@");
}

std::string timed_text(const std::string& text) {
  TemporaryFolder folder;
  return timed(folder.write("r.yaml", text));
}

struct Hostile {
  std::string name, text, mistakes;
};

std::string many_keys(const std::string& before, const std::string& after) {
  std::string text = before;
  for (int i = 0; text.size() < kMiB - 32; ++i) text += "k" + std::to_string(i) + after;
  return text;
}

std::string alias_bomb() {
  std::string text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c <= 'z'; ++c) {
    std::string last(1, static_cast<char>(c - 1)), list = times("*" + last + ", ", 50);
    text += std::string(1, c) + ": &" + c + " [" + list + "]\n";
  }
  return text;
}

std::vector<Hostile> hostile() {
  const std::string deep = ": nested deeper than 32 levels; is this a recipe?";
  const std::string many = ": more than 10000 values; is this a recipe?";
  const std::string key = ": a key must be plain text";
  const std::string is_no_map =
      ": a recipe is a mapping of sections; write for example \"model: {name: cnn}\"";
  return {
      {"BracketsOnOneLine", times("["), "@:1:33" + deep},
      {"BracketsOnManyLines", times("[\n"), "@:33:1" + deep},
      {"Braces", times("{"), "@:1:2" + key},
      {"BracketsAndBraces", times("[{"), "@:1:3" + key},
      {"BracesAndKeys", times("{a: "), "@:1:129" + deep},
      {"KeysAndBrackets", times("{\"a\": ["), "@:1:113" + deep},
      {"QuotedKeysAndBrackets", times("\"a\": ["), "@:1:97" + deep},
      {"Dashes", times("- "), "@:1:65" + deep},
      {"DashesOnManyLines", times("-\n"), "@:10000:2" + many},
      {"QuestionMarks", times("? "), "@:1:3" + key},
      {"Indentation",
       [] {
         std::string text;
         for (int i = 0; i < 1400; ++i) text += std::string(i, ' ') + "a:\n";
         return text;
       }(),
       "@:33:33" + deep},
      {"AMillionKeys", many_keys("", ":\n"), "@:5000:7" + many},
      {"AMillionKeysInBraces", many_keys("{", ": 1,"), "@:1:43890" + many},
      {"AMillionItems", times("- b\n"), "@:10000:3" + many},
      {"AMillionItemsInBrackets", "[" + times("a,", kMiB - 2) + "]", "@:1:20000" + many},
      {"AMillionSameKeys", times("a: b\n"),
       [] {
         std::string told;
         for (int line = 2; line < 52; ++line) {
           told += "@:" + std::to_string(line) +
                   ":1: a: duplicate key, first on line 1; keep one of them\n";
         }
         return told + "and 4950 more mistakes";
       }()},
      {"AnAliasBomb", alias_bomb(), "@:4:28" + many},
      {"AliasesThatDeepen",
       [] {
         std::string text = "a0: &a0 [x]\n";
         for (int i = 1; i < 100; ++i) {
           auto n = std::to_string(i), last = std::to_string(i - 1);
           text += "a" + n + ": &a" + n + " [*a" + last + "]\n";
         }
         return text;
       }(),
       "@:31:12" + deep},
      {"AMillionAnchors", "[" + times("&a x,", kMiB - 2) + "]", "@:1:49997" + many},
      {"AMillionTagDirectives", times("%TAG !a! b\n"),
       "@:1:1: tags are not part of a recipe; remove the %TAG line"},
      {"AMillionLongTagDirectives", "%YAML 1.2\n" + times("%TAG !a! b\n", kMiB - 10),
       "@:2:1: tags are not part of a recipe; remove the %TAG line"},
      {"AMillionUnknownDirectives", times("%FOO !a! b\n"),
       "@:1:5: not valid YAML: found unknown directive name while scanning a directive"},
      {"AMillionComments", times("# c\n"),
       "@: holds no recipe; a recipe holds sections like model and data"},
      {"AMillionEmptyLines", times("\n"),
       "@: holds no recipe; a recipe holds sections like model and data"},
      {"AMillionDocuments", times("---\n"),
       "@:2:1: a second document starts here; a recipe is one document: remove the ---"},
      {"OneHugeLine", times("x"), "@:1:1" + is_no_map},
      {"ALineOfColons", times(":"),
       "@:1:1048576: not valid YAML: mapping values are not allowed in this context"},
      {"AHugePlainText", times("x\n"), "@:1:1" + is_no_map},
      {"AHugeQuotedText", "'" + times("''", kMiB - 2) + "'", "@:1:1" + is_no_map},
      {"AQuoteWithoutEnd", "\"" + times("[\n", kMiB - 1),
       "@:524288:1: not valid YAML: found unexpected end of stream while scanning a quoted scalar "
       "that begins on line 1"},
      {"AHugeTag", "!<" + times("a", kMiB - 2),
       "@:1:1048577: not valid YAML: did not find the expected '>' while scanning a tag"},
      {"MoreThanAMebibyte", times("x", kMiB + 1), "@: is larger than 1 MiB; is this a recipe?"},
      {"AGrowingReference",
       "data: {train: x}\nmodel: {init_from: " + times("x", kMiB / 2) + "}\noptimizer: {freeze: [" +
           times("\"${model.init_from}\",", kMiB / 8) + "]}\n",
       "@:3:64: optimizer.freeze: references grow beyond 1 MiB"},
      {"ATextThatGrowsWhenWritten", "data: {train: '" + times("\"", kMiB - 64) + "'}\n",
       "@: resolves to 84 values in 2097635 bytes, more than 10000 in 1048576"},
      {"NulBytes", std::string(kMiB, '\0'),
       "@:1:1: character U+0000 is not allowed; is this a text file?"},
      {"ByteNoise", times("\xff\xfe\x80"), "@:1:1: byte 0xff is not UTF-8; save the file as UTF-8"},
      {"Utf16",
       std::string("\xff\xfe"
                   "a\0:\0",
                   6),
       "@:1:1: byte 0xff is not UTF-8; save the file as UTF-8"},
      {"NothingAtAll", "", "@: is empty; a recipe holds sections like model and data"},
  };
}

class HostileText : public testing::TestWithParam<Hostile> {};

TEST_P(HostileText, EndsWithinASecondInAnError) {
  EXPECT_EQ(timed_text(GetParam().text), GetParam().mistakes);
}

INSTANTIATE_TEST_SUITE_P(All, HostileText, testing::ValuesIn(hostile()),
                         [](const auto& info) { return info.param.name; });

TEST(HostileFile, IsNoFolderDeviceOrPipe) {
  TemporaryFolder folder;
  EXPECT_EQ(timed(folder.path()), "@: is a folder; name a recipe file in it");
  EXPECT_EQ(timed("/dev/zero"), "@: is not a regular file");
  EXPECT_EQ(timed("/dev/null"), "@: is not a regular file");
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(timed(folder / "pipe"), "@: is not a regular file");
  std::filesystem::create_symlink("/dev/zero", folder / "zero.yaml");
  EXPECT_EQ(timed(folder / "zero.yaml"), "@: is not a regular file");
  std::filesystem::create_symlink("loop.yaml", folder / "loop.yaml");
  EXPECT_EQ(timed(folder / "loop.yaml"), "@: cannot be opened: Too many levels of symbolic links");
}

TEST(HostileFile, MayNotBeExtendedEither) {
  TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  auto path = folder.write("r.yaml", "extends: pipe\n");
  EXPECT_EQ(timed(path), "@:1:10: " + (folder / "pipe") + ": is not a regular file");
  for (int i = 0; i < 40; ++i) {
    folder.write("b" + std::to_string(i) + ".yaml",
                 "extends: b" + std::to_string(i + 1) + ".yaml\n");
  }
  path = folder.write("r.yaml", "extends: b0.yaml\n");
  EXPECT_EQ(timed(path),
            (folder / "b30.yaml") + ":1:10: extends: more than 32 files extend one another");
}

TEST(HostileFile, MayBeAMebibyteOfTextInOneValue) {
  std::string brackets = times("[{", kMiB / 2);
  TemporaryFolder folder;
  auto path = folder.write("r.yaml", "data: {train: x}\nloss: {note: \"" + brackets + "\"}\n");
  EXPECT_EQ(timed(path), "");
  EXPECT_EQ(Recipe::load(path, {}, sample::sections()).get<sample::Loss>().note, brackets);
}

TEST(HostileFile, NeverUsesMuchMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer keeps what was freed";
#endif
  // the whole file ran in this process: text, tree and messages of 1 MiB files stay small
  for (const auto& file : hostile()) timed_text(file.text);
  rusage usage{};
  ASSERT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
  EXPECT_LT(usage.ru_maxrss, 600 << 10) << "KiB";
}

}  // namespace
}  // namespace lehr::recipe
