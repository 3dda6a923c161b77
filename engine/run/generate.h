// Text from a language model: the tokens that follow a prompt, one by one.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/export/sampling.h"
#include "models/model.h"

namespace lehr::run {

struct GenerateRequest {
  std::string source;  // artefact, run, checkpoint or Hugging Face folder
  std::string prompt, prompt_file;
  int64_t tokens = 200;  // new ones, fewer when the model ends its text
  artefact::Sampling sampling;
  int64_t threads = 0;                 // 0: every core
  std::vector<std::string> overrides;  // of a run: where its data lie now
};
// Hands the prompt and then each token's bytes to `write`; a character may come in two pieces. The
// text ends where the model ends it: with the tokenizer's end-of-text, or with what a Hugging Face
// folder names. Begin tokens of the tokenizer stand before the prompt. A run or checkpoint needs
// its data set, which holds the tokenizer. Throws Error{kUsage} for options that are none,
// Error{kData} for a prompt that the tokenizer does not know.
void generate(const GenerateRequest& request, const std::function<void(std::string_view)>& write);

// The live model as a source of tokens. It keeps keys and values of what it has seen; when
// `context` tokens are in them it drops them and goes on from the last half.
class Generator {
 public:
  // `mask`: artefact::token_mask of the tokenizer.
  Generator(models::LanguageModel& model, int64_t context, const artefact::Sampling& sampling,
            at::Tensor mask = {})
      : model_(model), context_(context), sampling_(sampling), mask_(std::move(mask)) {}
  // The token that follows `tokens`, which begin with those of the call before. At least one.
  int64_t next(const std::vector<int64_t>& tokens);

 private:
  models::LanguageModel& model_;
  int64_t context_;
  artefact::Sampling sampling_;
  at::Tensor mask_;
  models::KeyValueCache cache_;
  size_t seen_ = 0;  // how many of `tokens` the cache ends with
};

}  // namespace lehr::run
