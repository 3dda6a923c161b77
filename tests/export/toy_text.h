// A text in a file, and small language models on it.
#pragma once

#include "tests/export/toy.h"

namespace lehr::artefact::testing {

inline constexpr int64_t kToyContext = 12;

// 94 lines of a few words; one token a character.
inline std::shared_ptr<data::Dataset> toy_text(const Scratch& scratch) {
  const std::string path = scratch.file("text.txt");
  if (!file_exists(path)) {
    std::string text;
    for (int i = 0; i < 94; ++i) text += fmt::format("the {} kilns cool {} hours\n", i * 7, i % 5);
    write(path, text);
  }
  return data::open_dataset(FixedFields({{"data.source", std::string("text")},
                                         {"data.train_file", path},
                                         {"data.tokenizer", std::string("char")},
                                         {"data.context", kToyContext}}));
}

inline std::shared_ptr<models::LanguageModel> toy_language_model(const std::string& name,
                                                                 const data::DataInfo& info) {
  for (const auto& entry : models::registry()) {
    if (entry.name != name) continue;
    models::ModelContext context;
    context.vocabulary = context.outputs = info.vocabulary;
    context.context = info.context;
    context.seed = 5;
    context.options = at::TensorOptions().dtype(at::kFloat);
    FixedFields fields = entry.toy_fields;
    fields.set("model.name", name).set("model.pad_vocabulary_to", int64_t{64});
    auto model =
        std::dynamic_pointer_cast<models::LanguageModel>(models::make_model(fields, context));
    at::NoGradGuard no_grad;
    // fresh weights say nearly the same of every token
    for (auto& [key, tensor] : model->parameters())
      if (tensor.dim() > 1) tensor *= 8;
    model->train(false);
    return model;
  }
  return nullptr;
}

inline ExportRequest text_request(const std::string& model, const Scratch& scratch,
                                  const std::string& output) {
  auto dataset = toy_text(scratch);
  return request(toy_language_model(model, dataset->info()), dataset, "cross_entropy",
                 scratch.file(output));
}

inline at::Tensor toy_tokens(const data::DataInfo& info, int64_t count, int64_t length,
                             uint64_t seed = 3) {
  return ((uniform({count, length}, seed) + 0.5) * info.vocabulary).to(at::kLong);
}

}  // namespace lehr::artefact::testing
