// From a Hugging Face folder into a run and out again, as a user types it.
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "engine/base/safetensors.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

const std::string kPython = LEHR_SOURCE_DIR "/.deps/venv/bin/python";

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
            (std::vector<std::string>{"config.json", "model.safetensors", "tokenizer.json"}));
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

TEST_F(Pretrained, AFolderGeneratesWhatTransformersDoes) {
  const std::string peer = kPython + " " LEHR_SOURCE_DIR "/tests/export/huggingface_peer.py ";
  for (const std::string kind : {"gpt2_bytes", "llama_with_bytes"}) {
    ASSERT_EQ(shell(peer + "make " + kind + " " + kind + " o2.safetensors", scratch->path).code, 0);
    const Outcome theirs = shell(peer + "generate " + kind + " kiln 12 2>/dev/null", scratch->path);
    ASSERT_EQ(theirs.code, 0) << theirs.out;
    ASSERT_EQ(theirs.out.size(), 16U);
    const Outcome ours = lehr({"generate", kind, "--prompt", "kiln", "--tokens", "12",
                               "--temperature", "0", "--threads", "1"},
                              scratch->path);
    ASSERT_EQ(ours.code, 0) << ours.out;
    EXPECT_EQ(ours.out, theirs.out + "\n") << kind;
  }
}

TEST_F(Pretrained, AFolderWithoutItsTokenizerGeneratesNothing) {
  ASSERT_EQ(shell("cp -r theirs bare && rm bare/tokenizer.json", scratch->path).code, 0);
  const Outcome refused = lehr({"generate", "bare", "--prompt", "kiln"}, scratch->path);
  EXPECT_NE(refused.code, 0);
  EXPECT_NE(refused.out.find("tokenizer.json"), std::string::npos) << refused.out;
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
