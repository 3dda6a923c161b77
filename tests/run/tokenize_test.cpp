// `lehr tokenize`: the same bytes for any threads and however often it was killed, and every
// document in one place.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "engine/base/random.h"
#include "engine/data/bpe.h"
#include "engine/data/token_file.h"
#include "engine/data/tokenizer.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

// documents of letters, some longer than others, some there twice
std::vector<std::string> write_documents(const Scratch& scratch, int count) {
  Random random(1, Stream::kTest, 3);
  std::vector<std::string> documents;
  std::string files[3];
  for (int i = 0; i < count; ++i) {
    std::string text = std::to_string(i) + ": ";
    for (uint32_t n = random.below(i % 97 == 0 ? 20000 : 400); n > 0; --n)
      text += static_cast<char>(random.below(6) == 0 ? ' ' : 'a' + random.below(26));
    if (i % 50 == 49) text = documents[documents.size() - 7];
    files[i * 3 / count] += (i % 11 ? "\n\n\n" : "") + text + "\n\n\n";
    documents.push_back(text);
  }
  for (int f = 0; f < 3; ++f) scratch.write("in" + std::to_string(f) + ".txt", files[f]);
  return documents;
}

std::vector<std::string> words_for(const std::string& output,
                                   const std::vector<std::string>& more = {},
                                   const std::string& shard_tokens = "100000") {
  std::vector<std::string> words = {"tokenize",
                                    "in0.txt",
                                    "in1.txt",
                                    "in2.txt",
                                    "--output",
                                    output,
                                    "--tokenizer",
                                    "byte",
                                    "--document-separator",
                                    "\\n\\n\\n",
                                    "--shard-tokens",
                                    shard_tokens,
                                    "--validation-fraction",
                                    "0.1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::map<std::string, std::string> content_of(const Scratch& scratch, const std::string& folder) {
  std::map<std::string, std::string> content;
  for (const auto& name : list_folder(scratch.file(folder)))
    if (name != ".lock") content[name] = scratch.read(folder + "/" + name);
  return content;
}

std::vector<std::string> documents_of(const std::vector<std::string>& shards,
                                      const data::Tokenizer& tokenizer) {
  std::vector<std::string> documents;
  for (const auto& path : shards) {
    const data::TokenShard shard = data::open_token_shard(path, true);
    const auto* ids = static_cast<const uint16_t*>(shard.memory.get());
    for (size_t d = 0; d < shard.documents.size(); ++d) {
      const int64_t end = d + 1 < shard.documents.size() ? shard.documents[d + 1] : shard.count;
      EXPECT_EQ(ids[end - 1], *tokenizer.end_of_text());
      const data::Tokens one(ids + shard.documents[d], ids + end - 1);
      documents.push_back(tokenizer.decode(one));
    }
  }
  return documents;
}

TEST(Tokenize, PutsEveryDocumentIntoOneShardInOrder) {
  Scratch scratch;
  const auto documents = write_documents(scratch, 2000);
  const Outcome outcome = lehr(words_for("out"), scratch.path);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto folder = data::read_token_folder(scratch.file("out"));
  EXPECT_GT(folder.train.size(), 5u);
  EXPECT_EQ(folder.validation.size(), folder.train.size());
  const auto tokenizer = data::parse_tokenizer(folder.tokenizer, "out");
  const auto train = documents_of(folder.train, *tokenizer);
  const auto held = documents_of(folder.validation, *tokenizer);
  EXPECT_NEAR(static_cast<double>(held.size()) / 2000, 0.1, 0.03);
  // both together are all of them in order, and none is on both sides
  std::vector<std::string> merged;
  size_t t = 0, h = 0;
  for (const auto& document : documents) {
    const bool in_train = t < train.size() && train[t] == document;
    ASSERT_TRUE(in_train || (h < held.size() && held[h] == document)) << document.substr(0, 20);
    ++(in_train ? t : h);
  }
  EXPECT_EQ(t, train.size());
  EXPECT_EQ(h, held.size());
  const std::map<std::string, int> sides = [&] {
    std::map<std::string, int> all;
    for (const auto& document : train) all[document] |= 1;
    for (const auto& document : held) all[document] |= 2;
    return all;
  }();
  for (const auto& [document, side] : sides) EXPECT_NE(side, 3) << document.substr(0, 20);
  const auto index = nlohmann::json::parse(scratch.read("out/tokens.json"));
  EXPECT_EQ(index["sums"]["train"]["documents"], train.size());
}

TEST(Tokenize, GivesTheSameBytesForAnyThreads) {
  Scratch scratch;
  write_documents(scratch, 3000);
  ASSERT_EQ(lehr(words_for("one", {"--threads", "1"}), scratch.path).code, 0);
  ASSERT_EQ(lehr(words_for("four", {"--threads", "4"}), scratch.path).code, 0);
  EXPECT_EQ(content_of(scratch, "one"), content_of(scratch, "four"));
}

TEST(Tokenize, ContinuesAfterKillsToTheSameBytes) {
  Scratch scratch;
  write_documents(scratch, 6000);
  ASSERT_EQ(lehr(words_for("whole"), scratch.path).code, 0);
  Random random(2, Stream::kTest, 4);
  int kills = 0;
  for (int code = -1; code != 0;) {
    const pid_t pid =
        start_lehr(words_for("cut", {"--threads", "2"}), scratch.path, scratch.file("log"));
    usleep(static_cast<useconds_t>(20000 + random.uniform() * (kills < 12 ? 90000 : 3000000)));
    kill(pid, SIGKILL);
    code = wait_for(pid);
    ASSERT_TRUE(code == 0 || code == 128 + SIGKILL) << scratch.read("log");
    ASSERT_LT(++kills, 60);
  }
  EXPECT_GT(kills, 3);
  EXPECT_EQ(content_of(scratch, "cut"), content_of(scratch, "whole"));
}

TEST(Tokenize, KeepsWholeShardsAndMakesDamagedOnesAgain) {
  Scratch scratch;
  write_documents(scratch, 2000);
  ASSERT_EQ(lehr(words_for("out"), scratch.path).code, 0);
  const auto whole = content_of(scratch, "out");
  std::string bad = whole.at("train-00002.tokens");
  bad[5000] = static_cast<char>(bad[5000] ^ 1);
  scratch.write("out/train-00002.tokens", bad);
  ASSERT_EQ(unlink(scratch.file("out/tokens.json").c_str()), 0);
  auto inode = [&](const std::string& name) {
    struct stat status {};
    stat(scratch.file("out/" + name).c_str(), &status);
    return status.st_ino;
  };
  const auto before = inode("train-00001.tokens"), after = inode("train-00003.tokens");
  const Outcome again = lehr(words_for("out"), scratch.path);
  ASSERT_EQ(again.code, 0) << again.out;
  EXPECT_NE(again.out.find("train-00002.tokens at byte 256"), std::string::npos) << again.out;
  EXPECT_EQ(content_of(scratch, "out"), whole);
  EXPECT_EQ(inode("train-00001.tokens"), before);
  EXPECT_EQ(inode("train-00003.tokens"), after);
}

TEST(Tokenize, ContinuesAFolderThatAnEarlierReleaseBegan) {
  Scratch scratch;
  write_documents(scratch, 800);
  ASSERT_EQ(lehr(words_for("out"), scratch.path).code, 0);
  const auto whole = content_of(scratch, "out");
  auto plan = nlohmann::json::parse(whole.at("tokenize.json"));
  plan["version"] = 1;  // which knew inputs by their checksum alone
  for (auto& input : plan["inputs"]) input.erase("bytes");
  scratch.write("out/tokenize.json", plan.dump(2));
  ASSERT_EQ(shell("rm out/tokens.json out/train-00001.tokens", scratch.path).code, 0);
  const Outcome again = lehr(words_for("out"), scratch.path);
  ASSERT_EQ(again.code, 0) << again.out;
  for (const auto& [name, content] : whole) {
    if (name == "tokenize.json") continue;
    EXPECT_EQ(scratch.read("out/" + name), content) << name;
  }
  scratch.write("in1.txt", "another text");
  EXPECT_EQ(lehr(words_for("out"), scratch.path).code, 2);
}

TEST(Tokenize, RefusesAFolderOfAnotherTokenization) {
  Scratch scratch;
  write_documents(scratch, 200);
  ASSERT_EQ(lehr(words_for("out"), scratch.path).code, 0);
  const auto whole = content_of(scratch, "out");
  const Outcome other = lehr(words_for("out", {}, "5000"), scratch.path);
  EXPECT_EQ(other.code, 2) << other.out;
  EXPECT_NE(other.out.find("shard_tokens was 100000, is 5000"), std::string::npos) << other.out;
  scratch.write("in1.txt", "another text");
  const Outcome changed = lehr(words_for("out"), scratch.path);
  EXPECT_EQ(changed.code, 2) << changed.out;
  EXPECT_NE(changed.out.find("inputs was"), std::string::npos) << changed.out;
  EXPECT_EQ(content_of(scratch, "out"), whole);
  ASSERT_EQ(
      lehr({"tokenize", "in0.txt", "--output", ".", "--tokenizer", "byte"}, scratch.path).code, 2);
}

// a document longer than what is read at a time has the ids of the whole, whatever the tokenizer
TEST(Tokenize, ALongDocumentHasTheIdsOfTheWhole) {
  Scratch scratch;
  Random random(5, Stream::kTest, 8);
  std::string text;
  // a cut nearly anywhere gives other ids: within " lehr", within a character of several bytes
  const std::string fire = "\xf0\x9f\x94\xa5";
  const std::string words[] = {" lehr", " lehr",  " lehr", fire,    fire, fire,
                               fire,    "\n\n  ", "'ll",   ".\r\n", "   "};
  while (text.size() < (9u << 20)) text += words[random.below(11)];
  text.replace((3 << 20) + 1, 3 << 20, std::string(3 << 20, 'a'));  // a word of 3 MiB
  scratch.write("long.txt", text);
  scratch.write("long.txt.gz", "");
  ASSERT_EQ(shell("gzip -kf long.txt && printf 'ab\\n' > short.txt", scratch.path).code, 0);
  data::BpeParts parts = data::byte_parts(true);
  parts.tokens.push_back("");  // the end of a text is 256
  const uint32_t a = 'a', blank = ' ', l = 'l', e = 'e', h = 'h', r = 'r';
  for (const auto& [left, right] :
       {std::pair{a, a}, {blank, blank}, {l, e}, {h, r}, {259u, 260u}, {blank, 261u}}) {
    const auto id = static_cast<uint32_t>(parts.tokens.size());
    parts.merges.push_back({left, right, id, id});
    parts.tokens.push_back(parts.tokens[left] + parts.tokens[right]);
  }
  scratch.write("bpe.json", data::write_bpe(parts));
  const auto bpe = data::make_bpe(parts, "bpe");
  for (const auto& [input, tokenizer] :
       {std::pair{"long.txt", "bpe"}, std::pair{"long.txt.gz", "bpe"},
        std::pair{"long.txt", "char"}, std::pair{"long.txt.gz", "byte"}}) {
    const std::string output = std::string(tokenizer) + input;
    std::vector<std::string> words = {"tokenize", input,  "--tokenizer", tokenizer,
                                      "--output", output, "--threads",   "2"};
    if (std::string(tokenizer) == "bpe")
      words.insert(words.end(), {"--tokenizer-file", "bpe.json"});
    const Outcome made = lehr(words, scratch.path);
    ASSERT_EQ(made.code, 0) << made.out;
    const auto folder = data::read_token_folder(scratch.file(output));
    ASSERT_EQ(folder.train.size(), 1u);
    const data::TokenShard shard = data::open_token_shard(folder.train[0], true);
    const auto read = data::parse_tokenizer(folder.tokenizer, output);
    const data::Tokens wanted = read->encode(text);
    const auto* ids = static_cast<const uint16_t*>(shard.memory.get());
    EXPECT_TRUE(std::equal(ids, ids + shard.count, wanted.begin(), wanted.end())) << output;
    ASSERT_EQ(shard.documents.size(), 1u);
    EXPECT_EQ(shard.documents[0], 0);
    EXPECT_EQ(folder.layout, (data::TextLayout{"", false}));
    // how often each id stands there is known without reading them
    std::vector<int64_t> counts(read->vocabulary());
    for (const uint32_t id : wanted) ++counts[id];
    EXPECT_EQ(folder.counts, counts);
  }
}

// a quarter of a gigabyte in the memory that a few megabytes take
TEST(Tokenize, MemoryDoesNotGrowWithTheFile) {
  Scratch scratch;
  auto peak_kb = [&](const std::string& name, int64_t megabytes, bool packed) {
    const std::string make =
        "yes 'the kilns cool by night, every night of the week, and more' | head -c " +
        std::to_string(megabytes << 20) + (packed ? " | gzip -1" : "") + " > " + name;
    EXPECT_EQ(shell(make, scratch.path).code, 0);
    const Outcome made = shell(
        "/usr/bin/env python3 -c 'import resource, subprocess, sys; "
        "code = subprocess.call(sys.argv[1:]); "
        "print(\"peak\", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); "
        "sys.exit(code)' " LEHR_BINARY_DIR "/lehr tokenize " +
            name + " --tokenizer byte --threads 2 --output out-" + name,
        scratch.path);
    EXPECT_EQ(made.code, 0) << made.out;
    return std::stol(made.out.substr(made.out.find("peak ") + 5));
  };
  const int64_t small = peak_kb("small.txt", 4, false);
  EXPECT_LT(peak_kb("large.txt", 256, false), small + (64 << 10));
  EXPECT_LT(peak_kb("large.txt.gz", 256, true), small + (64 << 10));
}

TEST(Tokenize, ACompleteFolderIsLeftAsItIs) {
  Scratch scratch;
  write_documents(scratch, 300);
  ASSERT_EQ(lehr(words_for("out"), scratch.path).code, 0);
  const auto whole = content_of(scratch, "out");
  const Outcome again = lehr(words_for("out"), scratch.path);
  EXPECT_EQ(again.code, 0) << again.out;
  EXPECT_NE(again.out.find("complete already"), std::string::npos) << again.out;
  EXPECT_EQ(content_of(scratch, "out"), whole);
  ASSERT_EQ(unlink(scratch.file("out/train-00001.tokens").c_str()), 0);
  const Outcome mended = lehr(words_for("out"), scratch.path);
  EXPECT_EQ(mended.code, 0) << mended.out;
  EXPECT_EQ(content_of(scratch, "out"), whole);
}

TEST(Tokenize, NamesTheByteThatHasNoTokenWhereverItStands) {
  Scratch scratch;
  scratch.write("alphabet.txt", "ab\n ");
  ASSERT_EQ(
      lehr({"tokenize", "alphabet.txt", "--tokenizer", "char", "--output", "a"}, scratch.path).code,
      0);
  std::string text;
  for (int i = 0; i < 400000; ++i) text += "a b ba\n";  // several batches ahead of it
  for (const size_t at : {size_t{0}, size_t{9}, text.size() / 2, text.size()}) {
    scratch.write("b.txt", text.substr(0, at) + "\xc3\xa9" + text.substr(at));
    for (const char* shard_tokens : {"100000000", "200000"}) {
      ASSERT_EQ(shell("rm -rf out", scratch.path).code, 0);
      const std::vector<std::string> words = {
          "tokenize", "b.txt", "--tokenizer", "char", "--tokenizer-file", "a/tokenizer.json",
          "--output", "out",   "--threads",   "3",    "--shard-tokens",   shard_tokens};
      for (int start = 0; start < 2; ++start) {  // and where it goes on
        const Outcome outcome = lehr(words, scratch.path);
        EXPECT_EQ(outcome.code, 4) << outcome.out;
        EXPECT_NE(outcome.out.find("b.txt at byte " + std::to_string(at)), std::string::npos)
            << outcome.out;
      }
    }
  }
}

TEST(Tokenize, NamesWhatItCannotEncodeOrUse) {
  Scratch scratch;
  scratch.write("a.txt", "abc");
  scratch.write("b.txt", "ab\xff");
  const Outcome bad =
      lehr({"tokenize", "a.txt", "b.txt", "--output", "out", "--tokenizer", "char"}, scratch.path);
  EXPECT_EQ(bad.code, 4) << bad.out;
  EXPECT_NE(bad.out.find("b.txt at byte 2"), std::string::npos) << bad.out;
  const Outcome none = lehr({"tokenize", "a.txt", "--output", "out"}, scratch.path);
  EXPECT_EQ(none.code, 2) << none.out;
  EXPECT_NE(none.out.find("--tokenizer-file"), std::string::npos) << none.out;
  const Outcome fraction = lehr({"tokenize", "a.txt", "--output", "out", "--tokenizer", "byte",
                                 "--validation-fraction", "0.5"},
                                scratch.path);
  EXPECT_EQ(fraction.code, 2) << fraction.out;
  EXPECT_NE(fraction.out.find("--document-separator"), std::string::npos) << fraction.out;
  EXPECT_EQ(
      lehr({"tokenize", "no.txt", "--output", "out", "--tokenizer", "byte"}, scratch.path).code, 4);
}

}  // namespace
}  // namespace lehr::testing
