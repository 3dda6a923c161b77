// Text from runs, checkpoints and artefacts: the cache changes nothing, the seed decides.
#include "engine/run/generate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/base/error.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

constexpr int64_t kContext = 8;

std::shared_ptr<models::LanguageModel> toy(const std::string& name) {
  for (const auto& entry : models::registry()) {
    if (entry.name != name) continue;
    models::ModelContext context = entry.toy_context;
    context.options = at::TensorOptions().dtype(at::kFloat);
    FixedFields fields = entry.toy_fields;
    auto model = std::dynamic_pointer_cast<models::LanguageModel>(
        models::make_model(fields.set("model.name", name), context));
    at::NoGradGuard no_grad;
    for (auto& [key, tensor] : model->parameters())
      if (tensor.dim() > 1) tensor *= 8;
    model->train(false);
    return model;
  }
  return nullptr;
}

// what follows tokens[begin..], by one forward without a cache
int64_t uncached(models::LanguageModel& model, const std::vector<int64_t>& tokens, size_t begin,
                 const artefact::Sampling& sampling = {.temperature = 0}) {
  at::NoGradGuard no_grad;
  const at::Tensor ids = at::tensor(at::ArrayRef<int64_t>(tokens).slice(begin)).unsqueeze(0);
  const at::Tensor draw = artefact::draws(sampling.seed, static_cast<int64_t>(tokens.size()), 1);
  return artefact::sample(model.forward(ids).select(1, -1), draw, sampling).item<int64_t>();
}

TEST(Generator, ACacheChangesNoToken) {
  for (const char* name : {"gpt2", "llama"})
    for (const artefact::Sampling& sampling :
         {artefact::Sampling{.temperature = 0}, artefact::Sampling{.temperature = 8, .seed = 3}}) {
      auto model = toy(name);
      run::Generator generator(*model, kContext, sampling);
      std::vector<int64_t> tokens = {3, 1, 12};
      std::set<int64_t> kinds;
      while (tokens.size() < kContext + 1) {
        const int64_t wanted = uncached(*model, tokens, 0, sampling);
        tokens.push_back(generator.next(tokens));
        kinds.insert(tokens.back());
        EXPECT_EQ(tokens.back(), wanted) << name << " " << tokens.size();
      }
      if (sampling.temperature > 0) {
        EXPECT_GT(kinds.size(), 2u) << "nothing was compared";
      }
    }
}

TEST(Generator, WhatIsNotFiniteIsNoToken) {
  auto model = toy("gpt2");
  at::NoGradGuard no_grad;
  model->parameters().back().tensor.fill_(NAN);
  run::Generator generator(*model, kContext, {.temperature = 0});
  try {
    generator.next({3, 1});
    FAIL() << "a token";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNonFinite);
  }
}

TEST(Generator, AFullContextGoesOnFromItsLastHalf) {
  for (const char* name : {"gpt2", "llama"}) {
    auto model = toy(name);
    const artefact::Sampling sampling{.temperature = 8, .seed = 4};
    run::Generator generator(*model, kContext, sampling);
    std::vector<int64_t> tokens = {3, 1, 12};
    size_t begin = 0;
    for (int i = 0; i < 30; ++i) {
      if (tokens.size() - begin > kContext) begin = tokens.size() - kContext / 2;
      const int64_t wanted = uncached(*model, tokens, begin, sampling);
      tokens.push_back(generator.next(tokens));
      EXPECT_EQ(tokens.back(), wanted) << name << " " << tokens.size();
    }
  }
}

TEST(Generator, ALongPromptIsCutToTheContext) {
  auto model = toy("gpt2");
  run::Generator generator(*model, kContext, {.temperature = 0});
  const std::vector<int64_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  EXPECT_EQ(generator.next(tokens), uncached(*model, tokens, 3));
}

// a small run of each model, on one text
class Generate : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch = new Scratch;
    std::string text;
    for (int i = 0; i < 60; ++i) text += "the kilns cool by night " + std::to_string(i * 31) + "\n";
    scratch->write("text.txt", text);
    for (const std::string name : {"gpt2", "llama"}) {
      scratch->write(
          name + ".yaml",
          "data: {source: text, train_file: text.txt, context: 16}\n"
          "model: {name: " +
              name +
              ", layers: 2, heads: 2, width: 32, mlp_width: 64}\n"
              "training: {global_batch_size: 8, max_steps: 20}\n"
              "optimizer: {lr: 1e-2}\nloss: {name: cross_entropy}\nexport: {weights: last}\n");
      outcome = lehr({"train", name + ".yaml", "--run", name}, scratch->path);
      if (outcome.code != 0) break;
    }
  }
  static void TearDownTestSuite() { delete scratch; }
  void SetUp() override { ASSERT_EQ(outcome.code, 0) << outcome.out; }
  static std::string text_of(const std::vector<std::string>& more) {
    std::vector<std::string> words = {"generate", "--prompt", "the kilns", "--threads", "1"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome made = lehr(words, scratch->path);
    EXPECT_EQ(made.code, 0) << made.out;
    return made.out;
  }
  static Scratch* scratch;
  static Outcome outcome;
};
Scratch* Generate::scratch = nullptr;
Outcome Generate::outcome;

TEST_F(Generate, RunCheckpointAndArtefactSayTheSame) {
  for (const std::string name : {"gpt2", "llama"}) {
    for (const char* temperature : {"0", "1"}) {
      // up to the context: beyond it the cache slides by halves, an artefact by tokens
      const std::vector<std::string> more = {"--tokens", "7", "--temperature", temperature};
      auto with = [&](const std::string& source) {
        std::vector<std::string> words = more;
        words.push_back(source);
        return text_of(words);
      };
      const std::string run = with(name);
      EXPECT_EQ(run.size(), std::string("the kilns").size() + 7 + 1) << run;
      EXPECT_EQ(run.substr(0, 9), "the kilns");
      EXPECT_EQ(with(name + "/artefact"), run);
      EXPECT_EQ(with(name + "/checkpoints/step-00000020"), run);
    }
  }
}

TEST_F(Generate, ATrainingUnderCheckReportsHowFarEachKernelIsFromAten) {
  const std::map<std::string, std::vector<std::string>> kernels = {
      {"gpt2", {"add_layer_norm", "bias_gelu", "causal_attention", "embedding"}},
      {"llama", {"add_rms_norm", "swiglu", "rope", "causal_attention", "embedding"}}};
  for (const auto& [name, ops] : kernels) {
    const Outcome checked = lehr(
        {"train", name + ".yaml", "--run", name + "-checked", "--set", "training.kernels=check",
         "--set", "training.max_steps=2", "--set", "export.enabled=false"},
        scratch->path);
    ASSERT_EQ(checked.code, 0) << checked.out;
    for (const auto& op : ops)
      EXPECT_NE(checked.out.find("kernel " + op + ": at most "), std::string::npos) << op << "\n"
                                                                                    << checked.out;
  }
  EXPECT_EQ(outcome.out.find("kernel "), std::string::npos);
}

TEST_F(Generate, TheSeedDecidesTheText) {
  for (const std::string source : {"gpt2", "gpt2/artefact"}) {
    const std::string first = text_of({source, "--tokens", "60", "--seed", "1"});
    EXPECT_EQ(text_of({source, "--tokens", "60", "--seed", "1"}), first);
    EXPECT_NE(text_of({source, "--tokens", "60", "--seed", "2"}), first);
    EXPECT_EQ(first.substr(0, 40), text_of({source, "--tokens", "31", "--seed", "1"}).substr(0, 40))
        << "a longer text does not begin as the shorter one";
  }
}

TEST_F(Generate, EndsWhereATextEnds) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "abc\n" + std::to_string(i) + "\n";
  scratch->write("short.txt", text);
  scratch->write("short.yaml",
                 "data: {source: text, train_file: short.txt, context: 16, "
                 "document_separator: \"\\n\"}\n"
                 "model: {name: gpt2, layers: 1, heads: 2, width: 32}\n"
                 "training: {global_batch_size: 8, max_steps: 40}\n"
                 "optimizer: {lr: 1e-2}\nloss: {name: cross_entropy}\nexport: {enabled: false}\n");
  const Outcome trained = lehr({"train", "short.yaml", "--run", "short"}, scratch->path);
  ASSERT_EQ(trained.code, 0) << trained.out;
  const Outcome made =
      lehr({"generate", "short", "--prompt", "a", "--tokens", "50", "--temperature", "0"},
           scratch->path);
  EXPECT_EQ(made.out, "abc\n");
}

TEST_F(Generate, RefusesWhatItCannotDo) {
  struct Case {
    std::vector<std::string> words;
    int code;
    const char* part;
  };
  for (const Case& c : std::vector<Case>{
           {{"gpt2"}, 2, "--prompt"},
           {{"gpt2", "--prompt", "a", "--prompt-file", "text.txt"}, 2, "--prompt-file"},
           {{"gpt2", "--prompt", "the", "--temperature", "-1"}, 2, "--temperature"},
           {{"gpt2", "--prompt", "the", "--top-k", "-2"}, 2, "--top-k"},
           {{"gpt2", "--prompt", "the", "--top-p", "0"}, 2, "--top-p"},
           {{"gpt2", "--prompt", "the", "--tokens", "-4"}, 2, "--tokens"},
           {{"gpt2", "--prompt", "Zebra"}, 4, "Z"},
           {{"gpt2", "--prompt-file", "nowhere"}, 4, "nowhere"},
           {{"nowhere", "--prompt", "the"}, 5, "nowhere"}}) {
    std::vector<std::string> words = {"generate"};
    words.insert(words.end(), c.words.begin(), c.words.end());
    const Outcome refused = lehr(words, scratch->path);
    EXPECT_EQ(refused.code, c.code) << refused.out;
    EXPECT_NE(refused.out.find(c.part), std::string::npos) << refused.out;
  }
}

TEST_F(Generate, EvaluatingTheArtefactGivesTheFiguresOfTheRun) {
  const auto run = nlohmann::json::parse(scratch->read("llama/metrics.json"))["validation"];
  // the validation set is the tail of the text
  const std::string text = scratch->read("text.txt");
  scratch->write("tail.txt",
                 text.substr(static_cast<size_t>(static_cast<double>(text.size()) * 0.9)));
  const Outcome evaluated =
      lehr({"evaluate", "llama/artefact", "--data", "tail.txt", "--json"}, scratch->path);
  ASSERT_EQ(evaluated.code, 0) << evaluated.out;
  const auto figures = nlohmann::json::parse(evaluated.out);
  for (const char* name : {"loss", "perplexity", "bits_per_byte"})
    EXPECT_NEAR(figures[name].get<double>(), run[name].get<double>(),
                1e-5 * run[name].get<double>())
        << name;
}

TEST_F(Generate, PredictNamesTheVerbForText) {
  const Outcome refused = lehr(
      {"predict", "gpt2/artefact", "--input", "text.txt", "--output", "no.csv"}, scratch->path);
  EXPECT_EQ(refused.code, 2) << refused.out;
  EXPECT_NE(refused.out.find("lehr generate"), std::string::npos) << refused.out;
}

}  // namespace
}  // namespace lehr::testing
