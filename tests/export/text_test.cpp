// A language model's artefact: logits of any batch and length, and text that a seed decides.
#include <nlohmann/json.hpp>

#include "engine/export/sampling.h"
#include "engine/export/trace.h"
#include "engine/export/verify.h"
#include "tests/export/toy_text.h"

namespace lehr::artefact {
namespace {

using namespace testing;

// what an artefact's generate is to give, by the live model without a cache
at::Tensor expected(models::LanguageModel& model, at::Tensor tokens, int64_t count,
                    const Sampling& sampling) {
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor logits =
        evaluate(model, tokens.slice(1, -kToyContext)).select(1, -1).to(at::kFloat);
    const at::Tensor draw = draws(sampling.seed, tokens.size(1), tokens.size(0));
    tokens = at::cat({tokens, sample(logits, draw, sampling)}, 1);
  }
  return tokens;
}

class TextArtefact : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    request_ = text_request(GetParam(), scratch_, "a");
    export_artefact(request_);
    artefact_ = std::make_unique<Artefact>(request_.output);
  }
  const data::DataInfo& info() const { return request_.dataset->info(); }
  models::LanguageModel& live() { return dynamic_cast<models::LanguageModel&>(*request_.model); }
  Scratch scratch_;
  ExportRequest request_;
  std::unique_ptr<Artefact> artefact_;
};
INSTANTIATE_TEST_SUITE_P(Models, TextArtefact, ::testing::Values("gpt2", "llama"));

TEST_P(TextArtefact, GivesTheLiveLogitsAtAnyBatchAndLength) {
  EXPECT_TRUE(artefact_->takes_text());
  EXPECT_EQ(artefact_->context(), kToyContext);
  EXPECT_EQ(artefact_->replay_golden(), 0);
  for (const auto& [count, length] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {1, kToyContext}, {5, 4}, {33, 9}, {2, 2}}) {
    const at::Tensor tokens = toy_tokens(info(), count, length);
    const at::Tensor logits = artefact_->logits(tokens);
    EXPECT_EQ(logits.sizes(), at::IntArrayRef({count, length, info().vocabulary}));
    EXPECT_TRUE(same_bits(logits, evaluate(live(), tokens))) << count << " x " << length;
  }
}

TEST_P(TextArtefact, GeneratesWhatTheLiveModelWould) {
  for (const Sampling& sampling :
       {Sampling{.temperature = 0}, Sampling{.temperature = 0.8, .seed = 7},
        Sampling{.temperature = 2, .top_k = 5, .seed = 1LL << 40 | 3},
        Sampling{.temperature = 1, .top_p = 0.7, .seed = -2}}) {
    const at::Tensor tokens = toy_tokens(info(), 3, 4);
    const at::Tensor made = artefact_->generate(tokens, 20, sampling);  // beyond the context
    EXPECT_TRUE(at::equal(made, expected(live(), tokens, 20, sampling)))
        << sampling.temperature << made;
  }
}

TEST_P(TextArtefact, TokenByTokenIsTheTextOfOneCall) {
  const Sampling sampling{.temperature = 1.5, .seed = 11};
  at::Tensor tokens = toy_tokens(info(), 1, 3);
  const at::Tensor whole = artefact_->generate(tokens, 15, sampling);
  for (int i = 0; i < 15; ++i) tokens = artefact_->generate(tokens, 1, sampling);
  EXPECT_TRUE(at::equal(tokens, whole));
}

TEST_P(TextArtefact, RefusesTokensThatAreNone) {
  const at::Tensor beyond = at::full({1, 3}, info().vocabulary, at::kLong);
  EXPECT_NE(refused(Code::kData, [&] { artefact_->logits(beyond); })
                .find(fmt::format("the vocabulary has 0 to {}", info().vocabulary - 1)),
            std::string::npos);
  refused(Code::kData, [&] { artefact_->generate(-at::ones({1, 1}, at::kLong), 1, {}); });
  refused(Code::kData, [&] { artefact_->logits(at::zeros({1, 3})); });
  refused(Code::kData, [&] { artefact_->logits(at::zeros({1, 99}, at::kLong)); });
  refused(Code::kData, [&] { artefact_->generate(at::zeros({1, 1}, at::kLong), -1, {}); });
  EXPECT_EQ(artefact_->logits(at::zeros({0, 3}, at::kLong)).sizes(),
            at::IntArrayRef({0, 3, info().vocabulary}));
}

TEST_P(TextArtefact, HoldsItsTokenizerAndSaysWhatItTakes) {
  EXPECT_EQ(read(request_.output + "/tokenizer.json"), info().tokenizer);
  EXPECT_EQ(artefact_->tokenizer(), info().tokenizer);
  const auto manifest = nlohmann::json::parse(read(request_.output + "/MANIFEST.json"));
  const auto& facts = manifest["facts"];
  EXPECT_EQ(facts["task"], "language model");
  EXPECT_EQ(facts["context"], kToyContext);
  EXPECT_EQ(facts["signature"]["inputs"][0]["shape"], nlohmann::json({"N", "T"}));
  EXPECT_EQ(facts["signature"]["outputs"][0]["shape"],
            nlohmann::json({"N", "T", info().vocabulary}));
  EXPECT_EQ(facts["verified"]["lengths"], nlohmann::json({kToyContext, 7, 2}));
  EXPECT_NE(describe(request_.output).text.find("tokens int64 [N, T]"), std::string::npos);
}

TEST(ExportOfText, NeedsALengthFreeModel) {
  // a language model that is right at one length only
  struct Fixed : models::LanguageModel {
    Fixed() { table = add_parameter("table", uniform({16, 16}, 3)); }
    at::Tensor hidden(const Input& input) override {
      const at::Tensor x = at::embedding(table, input.ids);
      return x * static_cast<double>(input.ids.size(1));
    }
    at::Tensor head() const override { return table; }
    int64_t vocabulary() const override { return 16; }
    int64_t longest() const override { return 8; }
    at::Tensor table;
  };
  data::DataInfo info;
  info.is_text = true, info.vocabulary = 16, info.context = 8;
  std::string why;
  EXPECT_FALSE(exports(std::make_shared<Fixed>(), info, &why));
  EXPECT_NE(why.find("batch of 1"), std::string::npos) << why;
}

TEST(Sample, DrawsAsOftenAsTheSoftmaxSays) {
  const at::Tensor logits = at::tensor({0.f, 2.f, 1.f, -1.f}).unsqueeze(0);
  const Sampling sampling{.temperature = 0.7};
  constexpr int64_t kDraws = 20000;
  const at::Tensor ids = sample(logits.expand({kDraws, 4}), draws(5, 0, kDraws), sampling);
  const at::Tensor share = at::bincount(ids.flatten(), {}, 4).to(at::kDouble) / kDraws;
  EXPECT_TRUE(at::allclose(share, at::softmax(logits[0].to(at::kDouble) / 0.7, 0), 0, 0.01))
      << share;
}

TEST(Sample, TopKAndTopPLeaveOutTheRest) {
  const at::Tensor logits = at::log(at::tensor({0.1, 0.5, 0.15, 0.25})).expand({4000, 4});
  auto seen = [&](const Sampling& sampling) {
    const at::Tensor ids = sample(logits, draws(1, 9, 4000), sampling).flatten();
    return at::bincount(ids, {}, 4).gt(0);
  };
  auto set = [](std::initializer_list<bool> list) {
    return at::tensor(std::vector<int64_t>(list.begin(), list.end())).to(at::kBool);
  };
  EXPECT_TRUE(at::equal(seen({}), set({true, true, true, true})));
  EXPECT_TRUE(at::equal(seen({.top_k = 2}), set({false, true, false, true})));
  EXPECT_TRUE(at::equal(seen({.top_k = 9}), set({true, true, true, true})));
  EXPECT_TRUE(at::equal(seen({.top_p = 0.6}), set({false, true, false, true})));
  EXPECT_TRUE(at::equal(seen({.top_p = 0.8}), set({false, true, true, true})));
  EXPECT_TRUE(at::equal(seen({.top_p = 0.01}), set({false, true, false, false})));
  EXPECT_TRUE(at::equal(seen({.temperature = 0}), set({false, true, false, false})));
}

TEST(Sample, RefusesWhatIsNoSampling) {
  refused(Code::kUsage, [] { check({.temperature = -1}); });
  refused(Code::kUsage, [] { check({.temperature = std::nan("")}); });
  refused(Code::kUsage, [] { check({.top_k = -1}); });
  refused(Code::kUsage, [] { check({.top_p = 0}); });
  refused(Code::kUsage, [] { check({.top_p = 1.5}); });
  EXPECT_NO_THROW(check({.temperature = 0, .top_k = 3, .top_p = 1}));
}

}  // namespace
}  // namespace lehr::artefact
