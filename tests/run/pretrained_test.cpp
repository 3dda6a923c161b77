// From a Hugging Face folder into a run and out again, as a user types it.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/files.h"
#include "engine/base/safetensors.h"
#include "engine/data/tokenizer.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

const std::string kPython = LEHR_SOURCE_DIR "/.deps/venv/bin/python";

std::vector<uint32_t> characters(const std::string& text) {
  std::vector<uint32_t> codes;
  for (size_t at = 0; at < text.size();) {
    const data::CodePoint point = data::code_point(text, at);
    codes.push_back(point.value);
    at += static_cast<size_t>(point.bytes);
  }
  return codes;
}

class Pretrained : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!file_exists(kPython)) return;
    scratch = new Scratch;
    made = shell(kPython + " " LEHR_SOURCE_DIR
                           "/tests/export/huggingface_peer.py make gpt2_bytes theirs o.safetensors",
                 scratch->path);
    std::string text;
    for (int i = 0; i < 40; ++i) text += "the kilns cool by night " + std::to_string(i) + "\n";
    scratch->write("text.txt", text);
    scratch->write("tune.yaml",
                   "data: {source: text, train_file: text.txt, context: 24, tokenizer: bpe,\n"
                   "       tokenizer_file: theirs/tokenizer.json}\n"
                   "model: {name: gpt2, pretrained: theirs, layers: 2, heads: 4, width: 32}\n"
                   "training: {global_batch_size: 8, max_steps: 0}\n"
                   "loss: {name: cross_entropy}\n");
  }
  static void TearDownTestSuite() { delete scratch; }
  void SetUp() override {
    if (!file_exists(kPython)) GTEST_SKIP() << "no Python peer: run scripts/setup";
    ASSERT_EQ(made.code, 0) << made.out;
  }
  static Scratch* scratch;
  static Outcome made;
};
Scratch* Pretrained::scratch = nullptr;
Outcome Pretrained::made;

TEST_F(Pretrained, ARunBeginsWithItsWeightsAndExportsThemAgain) {
  const Outcome trained = lehr({"train", "tune.yaml", "--run", "run"}, scratch->path);
  ASSERT_EQ(trained.code, 0) << trained.out;
  const Outcome exported =
      lehr({"export", "run", "--format", "huggingface", "--output", "ours"}, scratch->path);
  ASSERT_EQ(exported.code, 0) << exported.out;
  EXPECT_EQ(list_folder(scratch->file("ours")),
            (std::vector<std::string>{"config.json", "generation_config.json", "model.safetensors",
                                      "tokenizer.json", "tokenizer_config.json"}));
  const SafetensorsFile ours(scratch->file("ours/model.safetensors"));
  const SafetensorsFile theirs(scratch->file("theirs/model.safetensors"));
  ASSERT_EQ(ours.tensors().size(), theirs.tensors().size());
  for (const auto& view : theirs.tensors()) {
    const auto* own = ours.find(view.name);
    ASSERT_TRUE(own && own->shape == view.shape) << view.name;
    EXPECT_EQ(std::memcmp(own->data, view.data, view.bytes), 0) << view.name;
  }
  EXPECT_EQ(nlohmann::json::parse(scratch->read("ours/config.json"))["eos_token_id"], 256);
}

TEST_F(Pretrained, AFolderBecomesAnArtefactThatGenerates) {
  const Outcome exported = lehr({"export", "theirs", "--output", "artefact"}, scratch->path);
  ASSERT_EQ(exported.code, 0) << exported.out;
  const Outcome text = lehr({"generate", "artefact", "--prompt", "kiln", "--tokens", "8",
                             "--temperature", "0", "--threads", "1"},
                            scratch->path);
  ASSERT_EQ(text.code, 0) << text.out;
  EXPECT_EQ(text.out.substr(0, 4), "kiln");
  const Outcome inspected = lehr({"inspect", "artefact"}, scratch->path);
  EXPECT_EQ(inspected.code, 0) << inspected.out;
  EXPECT_NE(inspected.out.find("language model"), std::string::npos) << inspected.out;
}

TEST_F(Pretrained, AFolderWithoutATokenizerIsTakenWhereNoTextIsNeeded) {
  ASSERT_EQ(shell("cp -r theirs bare && rm bare/tokenizer.json", scratch->path).code, 0);
  const Outcome refused = lehr({"generate", "bare", "--prompt", "kiln"}, scratch->path);
  EXPECT_EQ(refused.code, 4) << refused.out;
  EXPECT_NE(refused.out.find("save_pretrained"), std::string::npos) << refused.out;
  const Outcome exported = lehr({"export", "bare", "--output", "bare-artefact"}, scratch->path);
  ASSERT_EQ(exported.code, 0) << exported.out;
  EXPECT_EQ(lehr({"generate", "bare-artefact", "--prompt", "kiln"}, scratch->path).code, 4);
  // token shards need no tokenizer
  ASSERT_EQ(lehr({"tokenize", "text.txt", "--output", "shards", "--tokenizer", "bpe",
                  "--tokenizer-file", "theirs/tokenizer.json", "--document-separator", "\\n"},
                 scratch->path)
                .code,
            0);
  const Outcome evaluated =
      lehr({"evaluate", "bare-artefact", "--data", "shards", "--json"}, scratch->path);
  ASSERT_EQ(evaluated.code, 0) << evaluated.out;
  EXPECT_GT(nlohmann::json::parse(evaluated.out)["loss"].get<double>(), 1);
  scratch->write("shards.yaml",
                 "data: {source: tokens, train_tokens: [shards], context: 24}\n"
                 "model: {name: gpt2, pretrained: bare, layers: 2, heads: 4, width: 32}\n"
                 "training: {global_batch_size: 8, max_steps: 1}\n");
  const Outcome trained = lehr({"train", "shards.yaml", "--run", "of-shards"}, scratch->path);
  EXPECT_EQ(trained.code, 0) << trained.out;
}

// Added tokens of every sort, a begin token, a special token with the first id, and more rows than
// tokens: from folders of transformers into runs and artefacts, and into folders of ours.
TEST_F(Pretrained, TransformersGivesOurIdsAndTextsOnTheWayInAndOut) {
  const std::string peer = kPython + " " LEHR_SOURCE_DIR "/tests/export/huggingface_peer.py ";
  const std::map<std::string, std::pair<std::string, int>> kinds = {
      {"gpt2_words", {"name: gpt2, layers: 2, heads: 4, width: 32", 320}},
      {"llama_words",
       {"name: llama, layers: 2, heads: 4, width: 32, mlp_width: 48, tied: false, "
        "rms_norm_eps: 1e-6, rope_theta: 10000",
        384}}};
  ASSERT_EQ(shell(peer + "folders llama_with_bytes gpt2_words llama_words", scratch->path).code, 0);
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "the kilns <mol> cool by gramme night [lehr] " + std::to_string(i * 7) + "\n\n";
  scratch->write("words.txt", text);
  for (const auto& [kind, about] : kinds) {
    scratch->write(kind + ".yaml",
                   "data: {source: text, train_file: words.txt, context: 24, tokenizer: bpe,\n"
                   "       tokenizer_file: " +
                       kind +
                       "/tokenizer.json,\n"
                       "       document_separator: \"\\n\\n\"}\n"
                       "model: {pretrained: " +
                       kind + ", " + about.first +
                       "}\n"
                       "training: {global_batch_size: 8, max_steps: 3}\n");
    const Outcome trained = lehr({"train", kind + ".yaml", "--run", kind + "-run"}, scratch->path);
    ASSERT_EQ(trained.code, 0) << trained.out;
    const std::string ours = kind + "-ours";
    const Outcome exported =
        lehr({"export", kind + "-run", "--format", "huggingface", "--output", ours}, scratch->path);
    ASSERT_EQ(exported.code, 0) << exported.out;
    EXPECT_EQ(nlohmann::json::parse(scratch->read(ours + "/config.json"))["vocab_size"],
              about.second);
    const auto generation = nlohmann::json::parse(scratch->read(ours + "/generation_config.json"));
    EXPECT_EQ(generation["suppress_tokens"].back(), about.second - 1);
    // rows that are no token are never drawn, however flat the probabilities are
    for (const std::string& source : {kind, kind + "-run", kind + "-run/artefact"}) {
      const Outcome drawn = lehr({"generate", source, "--prompt", "x", "--tokens", "60",
                                  "--temperature", "100", "--threads", "1"},
                                 scratch->path);
      EXPECT_EQ(drawn.code, 0) << source << drawn.out;
    }
    scratch->write("other.yaml",
                   "data: {source: text, train_file: words.txt, context: 24}\n"
                   "model: {pretrained: " +
                       kind + ", " + about.first +
                       "}\n"
                       "training: {global_batch_size: 8, max_steps: 3}\n");
    const Outcome other = lehr({"check", "other.yaml"}, scratch->path);
    EXPECT_EQ(other.code, 3) << other.out;
    EXPECT_NE(other.out.find("data.tokenizer_file: "), std::string::npos) << other.out;
  }
  // bytes become a tokenizer that transformers knows
  scratch->write("bytes.yaml",
                 "data: {source: text, train_file: words.txt, context: 24, tokenizer: byte,\n"
                 "       document_separator: \"\\n\\n\"}\n"
                 "model: {name: gpt2, layers: 1, heads: 2, width: 16, pad_vocabulary_to: 64}\n"
                 "training: {global_batch_size: 8, max_steps: 30}\noptimizer: {lr: 1e-2}\n");
  ASSERT_EQ(lehr({"train", "bytes.yaml", "--run", "bytes-run"}, scratch->path).code, 0);
  ASSERT_EQ(lehr({"export", "bytes-run", "--format", "huggingface", "--output", "bytes-ours"},
                 scratch->path)
                .code,
            0);
  const Outcome theirs =
      shell(peer +
                "auto 12 theirs llama_with_bytes gpt2_words llama_words gpt2_words-ours "
                "llama_words-ours bytes-ours -- kiln '<mol> gramme' 'a  [lehr] y' "
                "2>/dev/null",
            scratch->path);
  ASSERT_EQ(theirs.code, 0) << theirs.out;
  std::istringstream lines(theirs.out);
  std::string line;
  std::map<std::string, std::string> ids;  // of a folder's prompt
  while (std::getline(lines, line)) {
    const auto answer = nlohmann::json::parse(line);
    const std::string folder = answer["folder"], prompt = answer["prompt"];
    ids[folder + prompt] = answer["ids"].dump();
    std::vector<std::string> sources = {folder};
    if (folder.ends_with("-ours")) {
      const std::string kind = folder.substr(0, folder.size() - 5);
      sources.push_back(kind + "-run");
      sources.push_back(kind + "-run/artefact");
      // the same from the folder that came in and the one that went out
      if (kinds.contains(kind)) {
        EXPECT_EQ(ids[folder + prompt], ids[kind + prompt]) << line;
      }
    }
    std::string wanted = prompt;
    for (const uint32_t code : characters(answer["text"])) wanted += static_cast<char>(code);
    for (const auto& source : sources) {
      const Outcome made = lehr({"generate", source, "--prompt", prompt, "--tokens", "12",
                                 "--temperature", "0", "--threads", "1"},
                                scratch->path);
      EXPECT_EQ(made.out, wanted + "\n") << source << " " << line;
    }
  }
  EXPECT_EQ(ids.size(), 21U) << theirs.out;
}

TEST_F(Pretrained, AModelOfAnotherShapeIsRefusedBeforeItTrains) {
  for (const char* verb : {"train", "check"}) {
    const Outcome refused = lehr({verb, "tune.yaml", "--set", "model.layers=3", "--set",
                                  "model.layer_norm_eps=1e-6", "--set", "data.context=16"},
                                 scratch->path);
    EXPECT_EQ(refused.code, 3) << refused.out;
    for (const char* part : {"model.layers is 3, and its config.json says 2", "layer_norm_eps",
                             "16, and its config.json says 24"})
      EXPECT_NE(refused.out.find(part), std::string::npos) << part << "\n" << refused.out;
  }
}

TEST_F(Pretrained, TwoOriginsOfWeightsAreAMistake) {
  const Outcome refused =
      lehr({"train", "tune.yaml", "--set", "model.init_from=elsewhere"}, scratch->path);
  EXPECT_EQ(refused.code, 3) << refused.out;
  EXPECT_NE(refused.out.find("model.init_from"), std::string::npos) << refused.out;
}

TEST_F(Pretrained, WhatAFolderHoldsInsteadIsNamed) {
  ASSERT_EQ(shell("mkdir gguf && touch gguf/model-Q4_K_M.gguf && cp -r theirs naked && "
                  "rm naked/config.json",
                  scratch->path)
                .code,
            0);
  for (const auto& [folder, part] : {std::pair{"gguf", "`model-Q4_K_M.gguf` is a GGUF file"},
                                     std::pair{"naked", "no config.json"}})
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"generate", folder, "--prompt", "a"},
          {"export", folder, "--output", "never"}}) {
      const Outcome refused = lehr(words, scratch->path);
      EXPECT_EQ(refused.code, 5) << refused.out;
      EXPECT_NE(refused.out.find(part), std::string::npos) << refused.out;
    }
}

TEST_F(Pretrained, AnUnsupportedConfigIsNamed) {
  ASSERT_EQ(
      shell("cp -r theirs odd && sed -i 's/gelu_new/relu/' odd/config.json", scratch->path).code,
      0);
  const Outcome refused = lehr({"export", "odd", "--output", "no"}, scratch->path);
  EXPECT_EQ(refused.code, 5) << refused.out;
  EXPECT_NE(refused.out.find("activation_function is relu"), std::string::npos) << refused.out;
  EXPECT_FALSE(file_exists(scratch->file("no")));
}

}  // namespace
}  // namespace lehr::testing
