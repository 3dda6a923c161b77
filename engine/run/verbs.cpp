#include "engine/run/verbs.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/fields.h"
#include "engine/data/raw.h"
#include "engine/export/artefact.h"
#include "engine/metrics/fields.h"
#include "engine/metrics/metrics.h"
#include "engine/recipe/recipe.h"
#include "engine/run/evaluate_text.h"
#include "engine/run/fields.h"

namespace lehr::run {

using nlohmann::json;

namespace {

constexpr int64_t kBatch = 500;

int64_t rows_of(const data::RawBatch& raw) {
  return raw.images.defined() ? raw.images.size(0) : raw.numbers.size(0);
}

data::RawBatch slice(const data::RawBatch& raw, int64_t begin, int64_t end) {
  data::RawBatch part;
  if (raw.images.defined()) part.images = raw.images.slice(0, begin, end);
  if (raw.numbers.defined()) part.numbers = raw.numbers.slice(0, begin, end);
  if (!raw.strings.empty())
    part.strings.assign(raw.strings.begin() + begin, raw.strings.begin() + end);
  return part;
}

// the artefact's answers for all rows, a few hundred at a time
artefact::Prediction predict_all(const artefact::Artefact& model, const data::RawBatch& raw) {
  artefact::Prediction all;
  std::vector<at::Tensor> scores;
  for (int64_t begin = 0, n = rows_of(raw); begin < n; begin += kBatch) {
    auto part = model.predict(slice(raw, begin, std::min(n, begin + kBatch)));
    all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
    scores.push_back(part.scores);
  }
  if (scores.empty()) throw Error(Code::kData, "the input holds no samples");
  all.scores = at::cat(scores, 0);
  return all;
}

// what pictures are scaled to
data::RawImageShape image_shape(const artefact::Artefact& model) {
  const auto& shape = model.image_shape();
  data::RawImageShape wanted;
  wanted.height = shape.at(0);
  wanted.width = shape.at(1);
  wanted.channels = shape.size() > 2 ? shape[2] : 1;
  return wanted;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

void predict(const std::string& path, const std::vector<std::string>& input,
             const std::string& output, track::Terminal& terminal) {
  const artefact::Artefact model(path);
  if (model.takes_text())
    throw Error(Code::kUsage, "a language model predicts no table of answers", path,
                "lehr generate writes text with it, lehr evaluate measures it on a text file");
  data::RawBatch raw;
  if (model.takes_images()) {
    raw = data::read_raw_images(input, image_shape(model));
  } else {
    if (input.size() != 1) throw Error(Code::kUsage, "a table is one CSV file", "--input");
    raw = data::read_raw_table(input[0], model.number_columns(), model.string_columns());
  }
  const auto prediction = predict_all(model, raw);
  const auto& classes = model.classes();
  std::string csv;
  if (classes.empty()) {
    const int64_t k = prediction.scores.size(1);
    for (int64_t j = 0; j < k; ++j)
      csv += (j ? "," : "") + (k == 1 ? std::string("value") : fmt::format("value_{}", j));
  } else {
    csv = "label";
    for (const auto& name : classes) csv += "," + csv_cell("probability_" + name);
  }
  csv += "\n";
  const at::Tensor scores = prediction.scores.contiguous();
  const float* value = scores.data_ptr<float>();
  for (int64_t i = 0; i < scores.size(0); ++i) {
    if (!classes.empty()) csv += csv_cell(prediction.labels[static_cast<size_t>(i)]) + ",";
    for (int64_t j = 0; j < scores.size(1); ++j)
      csv += (j ? "," : "") + fmt::format("{}", *value++);
    csv += "\n";
  }
  write_file_durably(output, csv);
  terminal.print(fmt::format("{} samples: {}", scores.size(0), output));
}

void evaluate_artefact(const std::string& path, const std::vector<std::string>& files, bool as_json,
                       track::Terminal& terminal) {
  if (is_language_artefact(path)) return evaluate_text(path, files, as_json, terminal);
  const artefact::Artefact model(path);
  const auto recipe =
      recipe::Recipe::parse(model.recipe(), path + "/recipe.yaml", {}, all_sections());
  data::RawBatch raw;
  if (!model.takes_images()) {
    if (files.size() != 1)
      throw Error(Code::kUsage, "a table is one CSV file with its target column", "--data");
    raw = data::read_raw_table(files[0], model.number_columns(), model.string_columns(),
                               recipe.get<data::TableFields>().target, model.classes());
  } else if (files.size() == 1) {  // a folder with a class per sub-folder
    raw = data::read_raw_images(files, image_shape(model), model.classes());
  } else if (files.size() == 2) {
    raw = data::read_raw_images({files[0]}, image_shape(model));
    raw.targets = data::read_targets(files[1], model.classes());
  } else {
    throw Error(Code::kUsage, "give the images, then their labels", "--data");
  }
  if (!raw.targets.defined())
    throw Error(Code::kData, "the data holds no targets", files[0], "give labels too");
  if (raw.targets.size(0) != rows_of(raw))
    throw Error(Code::kData,
                fmt::format("{} samples, but {} targets", rows_of(raw), raw.targets.size(0)),
                files.back());
  const auto prediction = predict_all(model, raw);
  const auto fields = recipe.get<metrics::MetricsFields>();
  auto all = metrics::make_metrics(fields.names, metrics::make_context(fields, model.classes()));
  json figures = {{"samples", prediction.scores.size(0)}};
  std::vector<std::vector<std::string>> rows;
  for (auto& metric : all) {
    metric->update(prediction.scores, raw.targets);
    for (const auto& result : metric->compute()) {
      figures[result.name] = result.value ? json(*result.value) : json{{"none", result.why}};
      rows.push_back({result.name,
                      result.value ? fmt::format("{:.6g}", *result.value) : "none: " + result.why});
    }
  }
  if (as_json) {
    fmt::print("{}\n", figures.dump(2));
  } else {
    terminal.table({fmt::format("{} samples", prediction.scores.size(0)), ""}, rows);
  }
}

namespace {

std::string inspect_checkpoint(const std::string& path, bool as_json) {
  const auto loaded = checkpoint::load(path);
  const json facts = json::parse(loaded.facts);
  json out = {{"kind", "checkpoint"},      {"path", path},   {"step", loaded.step},
              {"samples", loaded.samples}, {"facts", facts}, {"tensors", json::array()}};
  std::string text = fmt::format("checkpoint {}: step {}, {} samples, every byte verified\n", path,
                                 loaded.step, loaded.samples);
  for (const auto& [key, value] : facts.at("surroundings").items())
    text += fmt::format("  {:<16}{}\n", key, value.dump());
  const auto list = [&](const std::string& shard, const SafetensorsFile& file,
                        const std::map<std::string, Rows>& parts) {
    for (const auto& tensor : file.tensors()) {
      json entry = {{"shard", shard},
                    {"name", tensor.name},
                    {"dtype", tensor.dtype},
                    {"shape", tensor.shape}};
      text += fmt::format("  {:<8}{:<48}{:<6}[{}]", shard, tensor.name, tensor.dtype,
                          fmt::join(tensor.shape, ", "));
      if (const auto part = parts.find(tensor.name); part != parts.end()) {
        const Rows& rows = part->second;
        entry["rows"] = {rows.first, rows.first + rows.count, rows.of};
        text += fmt::format(" rows {} to {} of {}", rows.first, rows.first + rows.count, rows.of);
      }
      out["tensors"].push_back(entry);
      text += "\n";
    }
  };
  for (const auto& [shard, file] : loaded.shards) list(shard, *file, {});
  for (const auto& [shard, pieces] : loaded.shared)
    for (const auto& piece : pieces) list(shard, *piece.file, piece.rows);
  return as_json ? out.dump(2) + "\n" : text;
}

std::string inspect_run(const std::string& path, bool as_json) {
  json out = {{"kind", "run"},
              {"path", path},
              {"finished", file_exists(join_path(path, "finished.json"))},
              {"checkpoints", json::array()}};
  std::string text =
      fmt::format("run {}: {}\n", path, out["finished"].get<bool>() ? "finished" : "not finished");
  for (const auto& entry : checkpoint::list(join_path(path, "checkpoints"))) {
    json row = {{"step", entry.step}, {"path", entry.path}, {"problem", entry.problem}};
    if (entry.monitor) row["monitor"] = *entry.monitor;
    out["checkpoints"].push_back(row);
    text += fmt::format("  step {:<10}{}{}\n", entry.step,
                        entry.monitor ? fmt::format("monitor {:.6g}  ", *entry.monitor) : "",
                        entry.problem.empty() ? "manifest verifies" : entry.problem);
  }
  if (file_exists(join_path(path, "metrics.json"))) {
    out["metrics"] = json::parse(read_file(join_path(path, "metrics.json")));
    text += out["metrics"].dump(2) + "\n";
  }
  return as_json ? out.dump(2) + "\n" : text;
}

}  // namespace

std::string inspect(const std::string& path, bool as_json) {
  if (file_exists(join_path(path, "model.pt")))
    return as_json ? artefact::describe(path).json + "\n" : artefact::describe(path).text;
  if (file_exists(join_path(path, "MANIFEST.json"))) return inspect_checkpoint(path, as_json);
  if (file_exists(join_path(path, "recipe.yaml"))) return inspect_run(path, as_json);
  throw Error(Code::kUsage, "this is no checkpoint, run or artefact", path,
              "a checkpoint has MANIFEST.json, an artefact model.pt as well, a run recipe.yaml");
}

}  // namespace lehr::run
