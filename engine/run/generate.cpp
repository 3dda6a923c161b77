#include "engine/run/generate.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "engine/base/cores.h"
#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/what_is.h"
#include "engine/data/tokenizer.h"
#include "engine/export/artefact.h"
#include "engine/export/huggingface.h"
#include "engine/run/finish.h"

namespace lehr::run {
namespace {

constexpr int64_t kMostTokens = 1 << 20;
constexpr uint64_t kPromptLimit = 64 << 20;

using Next = std::function<int64_t(const std::vector<int64_t>&)>;

std::vector<int64_t> prompt_tokens(const GenerateRequest& request, const data::Tokenizer& tokenizer,
                                   const std::string& prompt) {
  data::Tokens ids = tokenizer.begin_of_text();
  tokenizer.encode(prompt, ids);
  if (!ids.empty()) return {ids.begin(), ids.end()};
  // a text that begins where another ended
  if (const auto end = tokenizer.end_of_text()) return {*end};
  throw Error(Code::kUsage, "there is nothing to go on from", request.source,
              "give --prompt TEXT: this tokenizer has no token that begins a text");
}

std::shared_ptr<const data::Tokenizer> tokenizer_of(const std::string& json,
                                                    const std::string& source) {
  if (!json.empty()) return data::parse_tokenizer(json, join_path(source, "tokenizer.json"));
  throw Error(Code::kData, "there is no tokenizer, and text needs one", source,
              artefact::is_huggingface(source)
                  ? "put its tokenizer.json there: tokenizer.save_pretrained(folder) writes it"
                  : "train on folders of lehr tokenize, which hold it");
}

}  // namespace

int64_t Generator::next(const std::vector<int64_t>& tokens) {
  at::NoGradGuard no_grad;
  const auto size = static_cast<int64_t>(tokens.size());
  int64_t begin = static_cast<int64_t>(seen_);
  if (cache_.length == 0 || size - begin != 1 || cache_.length >= context_) {
    const bool is_full = cache_.length >= context_;
    cache_ = {};
    begin = std::max<int64_t>(0, size - (is_full ? std::max<int64_t>(1, context_ / 2) : context_));
  }
  const at::Tensor ids = at::tensor(at::ArrayRef<int64_t>(tokens).slice(begin)).unsqueeze(0);
  const at::Tensor last = model_.hidden({ids, {}, &cache_}).select(1, -1);  // [1, D]
  at::Tensor logits = at::linear(last, model_.head().slice(0, 0, model_.vocabulary()));
  if (!at::isfinite(logits).all().item<bool>())
    throw Error(Code::kNonFinite,
                fmt::format("after {} tokens the model's output is not finite", size), "",
                "an earlier checkpoint may be sound");
  if (mask_.defined()) logits = logits + mask_;
  seen_ = tokens.size();
  return artefact::sample(logits, artefact::draws(sampling_.seed, size, 1), sampling_)
      .item<int64_t>();
}

void generate(const GenerateRequest& request, const std::function<void(std::string_view)>& write) {
  artefact::check(request.sampling);
  if (request.tokens < 0 || request.tokens > kMostTokens)
    throw Error(Code::kUsage, fmt::format("{} tokens", request.tokens), "--tokens",
                fmt::format("give a number up to {}", kMostTokens));
  if (!request.prompt.empty() && !request.prompt_file.empty())
    throw Error(Code::kUsage, "a prompt and a file with one are two prompts", "--prompt-file",
                "give one of them");
  std::string prompt = request.prompt;
  if (!request.prompt_file.empty())
    prompt = plain_text(read_file(request.prompt_file, kPromptLimit), request.prompt_file);
  const int64_t cores = usable_cores();
  at::set_num_threads(static_cast<int>(request.threads > 0 ? request.threads : cores));

  std::shared_ptr<const data::Tokenizer> tokenizer;
  std::unique_ptr<artefact::Artefact> artefact;
  Reopened run;
  std::shared_ptr<models::LanguageModel> model;
  std::unique_ptr<Generator> generator;
  std::vector<int64_t> ends;
  Next next;
  const auto generate_with = [&](int64_t context, const std::string& json) {
    model->train(false);
    tokenizer = tokenizer_of(json, request.source);
    generator = std::make_unique<Generator>(*model, context, request.sampling,
                                            artefact::token_mask(json, model->vocabulary()));
    next = [&](const std::vector<int64_t>& tokens) { return generator->next(tokens); };
  };
  if (file_exists(join_path(request.source, "model.pt"))) {
    artefact = std::make_unique<artefact::Artefact>(request.source);
    if (!artefact->takes_text())
      throw Error(Code::kUsage, "this artefact is no language model", request.source,
                  "lehr predict answers with it");
    tokenizer = tokenizer_of(artefact->tokenizer(), request.source);
    // one token at a time: a draw depends on its position alone, so the text is that of one call
    next = [&](const std::vector<int64_t>& tokens) {
      return artefact->generate(at::tensor(tokens).unsqueeze(0), 1, request.sampling)
          .select(1, -1)
          .item<int64_t>();
    };
  } else if (artefact::is_huggingface(request.source)) {
    const Pretrained pretrained = open_pretrained(request.source);
    model = pretrained.model;
    ends = artefact::huggingface_ends(request.source);
    generate_with(pretrained.shape.positions, pretrained.tokenizer);
  } else {
    run = reopen(request.source, request.overrides);
    model = std::dynamic_pointer_cast<models::LanguageModel>(run.model);
    if (model == nullptr)
      throw Error(Code::kUsage, "this run's model is no language model", request.source,
                  "models of text generate it: gpt2, llama");
    const data::DataInfo& info = run.parts->dataset->info();
    generate_with(info.context, info.tokenizer);
  }

  std::vector<int64_t> tokens = prompt_tokens(request, *tokenizer, prompt);
  write(prompt);
  if (ends.empty() && tokenizer->end_of_text()) ends.push_back(*tokenizer->end_of_text());
  for (int64_t i = 0; i < request.tokens; ++i) {
    tokens.push_back(next(tokens));
    if (std::find(ends.begin(), ends.end(), tokens.back()) != ends.end()) return;
    const auto id = static_cast<uint32_t>(tokens.back());
    write(tokenizer->decode(&id, 1));
  }
}

}  // namespace lehr::run
