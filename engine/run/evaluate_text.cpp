#include "engine/run/evaluate_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/base/output.h"
#include "engine/checkpoint/saver.h"
#include "engine/data/fields.h"
#include "engine/data/test_text.h"
#include "engine/export/layout.h"
#include "engine/export/manifest.h"
#include "engine/recipe/recipe.h"
#include "engine/run/evaluate.h"
#include "engine/run/fields.h"

namespace lehr::run {

using nlohmann::json;

namespace {

// How the artefact's training read a file of text.
std::optional<data::TextLayout> layout_of(const json& facts, const recipe::Recipe& recipe) {
  if (const auto found = facts.find("documents"); found != facts.end())
    return data::TextLayout{found->at("separator").get<std::string>(),
                            found->at("ends").get<bool>()};
  // of a release that did not write it, the recipe says it of texts
  if (recipe.get<data::DataFields>().source != "text") return std::nullopt;
  const auto separator = recipe.get<data::TextFields>().document_separator;
  return data::TextLayout{separator, !separator.empty()};
}

}  // namespace

bool is_language_artefact(const std::string& path) {
  const std::string manifest = join_path(path, artefact::kManifestName);
  if (!file_exists(manifest)) return false;
  const json facts = json::parse(artefact::parse_manifest(read_file(manifest), manifest).facts);
  return facts.value("task", "") == "language model";
}

void evaluate_text(const std::string& path, const std::vector<std::string>& files, bool as_json,
                   track::Terminal& terminal) {
  const json facts = json::parse(artefact::verify_folder(path).facts);
  const std::string recipe_path = join_path(path, artefact::kRecipeName);
  Parts parts{stored_recipe(read_file(recipe_path), recipe_path), nullptr, {}, {}};
  settle_numerics(parts.recipe.get<TrainingFields>());
  data::TestText text;
  text.paths = files;
  const std::string tokenizer = join_path(path, artefact::kTokenizerName);
  if (file_exists(tokenizer)) text.tokenizer = read_file(tokenizer);
  text.layout = layout_of(facts, parts.recipe);
  text.vocabulary = facts.at("vocabulary").get<int64_t>();
  text.context = facts.at("context").get<int64_t>();
  text.document_mask = parts.recipe.get<data::WindowFields>().document_mask;
  parts.dataset = data::open_test_text(text);
  for (const auto& line : parts.dataset->remarks()) terminal.print("data: " + line);

  models::ModelContext context;
  context.vocabulary = context.outputs = text.vocabulary;
  context.context = text.context;
  context.options = at::TensorOptions().dtype(at::kFloat);
  const auto model = models::make_model(parts.recipe, context);
  NamedTensors weights = model->parameters();
  for (auto& buffer : model->buffers()) weights.push_back(buffer);
  checkpoint::restore(SafetensorsFile(join_path(path, artefact::kWeightsName)), weights);

  const Evaluation evaluation = evaluate(*model, parts, data::Split::kTest, nullptr);
  if (!evaluation.non_finite.empty()) log_warning(evaluation.non_finite);
  json figures = {{"tokens", evaluation.predicted}};
  std::vector<std::vector<std::string>> rows;
  for (const auto& result : evaluation.results) {
    figures[result.name] = result.value ? json(*result.value) : json{{"none", result.why}};
    rows.push_back(
        {result.name, result.value ? fmt::format("{:.6g}", *result.value) : "none: " + result.why});
  }
  if (as_json)
    print_out(figures.dump(2) + "\n");
  else
    terminal.table({fmt::format("{} tokens", evaluation.predicted), ""}, rows);
}

}  // namespace lehr::run
