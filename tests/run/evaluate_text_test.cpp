// `lehr evaluate` of a language artefact reads a text as training read it: from the artefact alone,
// the figures are those of the training's own test row, to the last digit.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/data/bpe.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

using nlohmann::json;

// documents of a few words, between blank lines
std::string documents(int count, int seed) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    for (int w = 0; w <= (i * 7 + seed) % 5; ++w)
      text += "the kiln " + std::to_string(i * w) + ", ";
    text += "cools\n\n";
  }
  return text;
}

class EvaluateText : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch = new Scratch;
    scratch->write("train.txt", documents(120, 0));
    scratch->write("test.txt", documents(30, 3));
    scratch->write("more.txt", documents(11, 4));
    data::BpeParts parts = data::byte_parts(true);
    parts.added.push_back({"<s>", 257});
    parts.begin = {257};
    scratch->write("begins.json", data::write_bpe(parts));
    for (const char* name : {"train", "test", "more"})
      for (const auto& [folder, separator] : {std::pair{"", "\\n\\n"}, std::pair{"words-", " "}}) {
        const Outcome made =
            lehr({"tokenize", std::string(name) + ".txt", "--tokenizer", "byte",
                  "--document-separator", separator, "--output", std::string(folder) + name},
                 scratch->path);
        ASSERT_EQ(made.code, 0) << made.out;
      }
    ASSERT_EQ(lehr({"tokenize", "train.txt", "more.txt", "--tokenizer", "byte", "--output", "two"},
                   scratch->path)
                  .code,
              0);
    ASSERT_EQ(lehr({"tokenize", "test.txt", "more.txt", "--tokenizer", "byte", "--output", "other"},
                   scratch->path)
                  .code,
              0);
  }
  static void TearDownTestSuite() { delete scratch; }
  // the test row of a training
  static json trained(const std::string& name, const std::string& data,
                      const std::string& more = "") {
    scratch->write(name + ".yaml",
                   "data: {" + data +
                       ", context: 24}\n"
                       "model: {name: gpt2, layers: 1, heads: 2, width: 16}\n"
                       "training: {global_batch_size: 8, max_steps: 4, threads: 1}\n" +
                       more);
    const Outcome outcome = lehr({"train", name + ".yaml", "--run", name}, scratch->path);
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    return json::parse(scratch->read(name + "/metrics.json"))["test"];
  }
  // of an artefact that lies alone: neither its run nor its recipe's files are looked at
  static Outcome evaluated(const std::string& name, const std::vector<std::string>& files) {
    shell("rm -rf alone && mkdir alone && cp -r " + name + "/artefact alone/", scratch->path);
    std::vector<std::string> words = {"evaluate", "alone/artefact", "--json", "--data"};
    words.insert(words.end(), files.begin(), files.end());
    return lehr(words, scratch->path);
  }
  static Scratch* scratch;
};
Scratch* EvaluateText::scratch = nullptr;

TEST_F(EvaluateText, GivesTheTestRowOfTheTrainingToTheLastDigit) {
  struct Case {
    std::string name, data, more;
    std::vector<std::vector<std::string>> files;  // each of them the test set
  };
  const std::string text = "source: text, train_file: train.txt, test_file: test.txt";
  for (const Case& c : std::vector<Case>{
           {"plain", text, "", {{"test.txt"}}},
           {"separated",
            text + ", tokenizer: byte, document_separator: \"\\n\\n\"",
            "",
            {{"test.txt"}}},
           {"masked",
            text + ", tokenizer: byte, document_separator: \"\\n\\n\", document_mask: true",
            "",
            {{"test.txt"}, {"test"}}},
           {"begins",
            text + ", tokenizer: bpe, tokenizer_file: begins.json, document_separator: \"\\n\\n\"",
            "",
            {{"test.txt"}}},
           {"smoothed",
            text,
            "loss: {name: cross_entropy, label_smoothing: 0.2, z_loss: 0.01}\n",
            {{"test.txt"}}},
           {"shards",
            "source: tokens, train_tokens: [train], test_tokens: [test]",
            "",
            {{"test.txt"}, {"test"}, {"test/train-00000.tokens"}}},
           {"shards-masked",
            "source: tokens, train_tokens: [train, more], test_tokens: [test], document_mask: true",
            "",
            {{"test.txt"}, {"test"}}},
           {"files",
            "source: tokens, train_tokens: [two], test_tokens: [other]",
            "",
            {{"test.txt", "more.txt"}, {"other"}}}}) {
    const json row = trained(c.name, c.data, c.more);
    for (const auto& files : c.files) {
      const Outcome outcome = evaluated(c.name, files);
      ASSERT_EQ(outcome.code, 0) << c.name << outcome.out;
      const json figures = json::parse(outcome.out);
      for (const char* name : {"loss", "perplexity", "bits_per_byte"}) {
        ASSERT_TRUE(row.contains(name) && row[name].is_number()) << c.name << row;
        EXPECT_EQ(figures[name].get<double>(), row[name].get<double>())
            << c.name << " " << name << " of " << files[0];
      }
      EXPECT_EQ(figures["perplexity"].get<double>(), std::exp(figures["loss"].get<double>()));
    }
  }
}

TEST_F(EvaluateText, BitsPerByteCountTheBytesOfThePredictedTokens) {
  // a token of byte text is a byte, an end of text none; the first of a text is not predicted
  const std::string text = documents(30, 3);
  double predicted = 0, bytes = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = text.find("\n\n", at) - at;
    predicted += static_cast<double>(length), bytes += static_cast<double>(length) - 1;
    at += length + 2;
  }
  auto bits = [](const json& row, double tokens, double of) {
    EXPECT_NEAR(row["bits_per_byte"].get<double>(),
                row["loss"].get<double>() * tokens / std::log(2.0) / of, 1e-9);
  };
  const std::string data =
      "source: text, train_file: train.txt, test_file: test.txt, "
      "validation_file: more.txt, tokenizer: byte";
  // whatever the validation set looks like
  bits(trained("bits", data), 1, 1);
  bits(trained("bits-masked", data + ", document_separator: \"\\n\\n\", document_mask: true"),
       predicted, bytes);
}

TEST_F(EvaluateText, WhatCannotBeReadAsInTrainingIsRefusedWithARemedy) {
  trained("mixed", "source: tokens, train_tokens: [train, words-train], test_tokens: [test]");
  const Outcome mixed = evaluated("mixed", {"test.txt"});
  EXPECT_EQ(mixed.code, 2) << mixed.out;
  EXPECT_NE(mixed.out.find("lehr tokenize"), std::string::npos) << mixed.out;
  EXPECT_EQ(evaluated("mixed", {"test"}).code, 0);
  trained("one", "source: text, train_file: train.txt, tokenizer: byte, test_file: test.txt");
  const Outcome several = evaluated("one", {"test.txt", "more.txt"});
  EXPECT_EQ(several.code, 2) << several.out;
  const Outcome other = evaluated("one", {"test"});  // of a tokenizer with an end of text
  EXPECT_EQ(other.code, 4) << other.out;
  EXPECT_NE(other.out.find("another tokenizer"), std::string::npos) << other.out;
  scratch->write("utf16.txt", std::string("\xff\xfe") + std::string("a\0b\0c\0", 6));
  for (const Outcome& outcome :
       {evaluated("one", {"utf16.txt"}),
        lehr({"tokenize", "utf16.txt", "--tokenizer", "byte", "--output", "no"}, scratch->path),
        lehr({"generate", "one", "--prompt-file", "utf16.txt"}, scratch->path),
        lehr({"train", "one.yaml", "--set", "data.train_file=utf16.txt", "--run", "no-run"},
             scratch->path)}) {
    EXPECT_EQ(outcome.code, 4) << outcome.out;
    EXPECT_NE(outcome.out.find("utf16.txt: is text in UTF-16"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("iconv -f UTF-16"), std::string::npos) << outcome.out;
  }
}

TEST_F(EvaluateText, ASeparatorThatStandsNowhereIsSaid) {
  scratch->write("dos.txt", "one\r\n\r\ntwo\r\n\r\nthree and so on, for long enough to train\r\n");
  const std::string data =
      "source: text, train_file: dos.txt, tokenizer: byte, context: 4, "
      "document_separator: \"\\n\\n\"";
  scratch->write("dos.yaml", "data: {" + data +
                                 "}\n"
                                 "model: {name: gpt2, layers: 1, heads: 2, width: 16}\n"
                                 "training: {global_batch_size: 8, max_steps: 1}\n");
  const Outcome held = lehr({"check", "dos.yaml"}, scratch->path);
  EXPECT_EQ(held.code, 3) << held.out;
  EXPECT_NE(held.out.find("\\r\\n"), std::string::npos) << held.out;
  const Outcome checked =
      lehr({"check", "dos.yaml", "--set", "data.validation_fraction=0"}, scratch->path);
  EXPECT_EQ(checked.code, 0) << checked.out;
  EXPECT_NE(checked.out.find("dos.txt: the document separator stands nowhere"), std::string::npos)
      << checked.out;
  const Outcome tokenized = lehr({"tokenize", "dos.txt", "--tokenizer", "byte", "--output",
                                  "dos-shards", "--document-separator", "\\n\\n"},
                                 scratch->path);
  EXPECT_EQ(tokenized.code, 0) << tokenized.out;
  EXPECT_NE(tokenized.out.find("stands nowhere"), std::string::npos) << tokenized.out;
}

}  // namespace
}  // namespace lehr::testing
