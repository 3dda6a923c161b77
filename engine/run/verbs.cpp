#include "engine/run/verbs.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/fields.h"
#include "engine/data/images.h"
#include "engine/data/raw.h"
#include "engine/export/artefact.h"
#include "engine/metrics/fields.h"
#include "engine/metrics/metrics.h"
#include "engine/recipe/recipe.h"
#include "engine/run/evaluate_text.h"
#include "engine/run/plan.h"

namespace lehr::run {

using nlohmann::json;

namespace {

constexpr int64_t kBatch = 500;

// What an artefact is asked about: rows, read a few hundred at a time.
struct Input {
  int64_t rows = 0;
  // of rows [begin, end), but for those that are left out
  std::function<data::RawBatch(int64_t begin, int64_t end)> read;
  std::vector<int64_t> left_out;
};

Input input_of(data::RawBatch table) {
  Input input;
  input.rows = table.numbers.size(0);
  input.read = [table = std::move(table)](int64_t begin, int64_t end) {
    data::RawBatch part;
    part.numbers = table.numbers.slice(0, begin, end);
    part.strings.assign(table.strings.begin() + begin, table.strings.begin() + end);
    return part;
  };
  return input;
}

// How many of them may be left out; none: the first bad picture is an error.
std::optional<int64_t> most_left_out(const recipe::Recipe& recipe, const std::string& bad_samples) {
  const auto fields = recipe.get<data::FolderFields>();
  if ((bad_samples.empty() ? fields.bad_samples : bad_samples) != "skip") return std::nullopt;
  return fields.max_bad_samples;
}

// `input` keeps referring to `images` and to itself.
void take_images(const data::RawImages& images, std::optional<int64_t> most, Input& input) {
  for (const auto& line : images.passed_over()) log_warning(line);
  input.rows = images.size();
  const auto leave_out = [&input, most](int64_t image, const data::BadPicture& why) {
    if (!most)
      throw Error(why.code(), why.message(), why.where(),
                  (why.hint().empty() ? "" : why.hint() + "\n  ") +
                      "--bad-samples skip goes on without it.");
    input.left_out.push_back(image);
    data::check_bad_samples(static_cast<int64_t>(input.left_out.size()), *most, "the input");
    log_warning(fmt::format("left out: {}", why.what()));
  };
  input.read = [&images, leave_out](int64_t begin, int64_t end) {
    data::RawBatch part;
    part.images = images.read(begin, end, leave_out);
    return part;
  };
}

// [N]
at::Tensor not_finite(const at::Tensor& scores) {
  return at::isfinite(scores).reshape({scores.size(0), -1}).all(1).logical_not();
}

// The row of the input that is the `index`th of those that are not left out.
int64_t row_of(const Input& input, int64_t index) {
  for (const int64_t row : input.left_out) index += row <= index;
  return index;
}

artefact::Prediction predict_all(const artefact::Artefact& model, const Input& input) {
  artefact::Prediction all;
  std::vector<at::Tensor> scores;
  for (int64_t begin = 0; begin < input.rows; begin += kBatch) {
    auto part = model.predict(input.read(begin, std::min(input.rows, begin + kBatch)));
    all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
    scores.push_back(part.scores);
  }
  if (scores.empty()) throw Error(Code::kData, "the input holds no samples");
  all.scores = at::cat(scores, 0);
  if (const at::Tensor bad = not_finite(all.scores).nonzero(); bad.numel() > 0)
    log_warning(fmt::format("the output is not finite for {} of {} samples; the first is sample {}",
                            bad.size(0), all.scores.size(0),
                            row_of(input, bad[0].item<int64_t>())));
  return all;
}

// How picture files become this model's images: as in its training.
data::View picture_view(const artefact::Artefact& model, const recipe::Recipe& recipe) {
  if (recipe.get<data::DataFields>().source == "image_folder") return data::picture_view(recipe);
  const auto& shape = model.image_shape();  // of arrays
  return {static_cast<int>(shape.at(0)), static_cast<int>(shape.at(1)),
          shape.size() > 2 ? static_cast<int>(shape[2]) : 1, 0};
}

recipe::Recipe recipe_of(const artefact::Artefact& model, const std::string& path) {
  return stored_recipe(model.recipe(), path + "/recipe.yaml");
}

std::string number(float value) { return fmt::format("{}", std::isnan(value) ? NAN : value); }

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

void predict(const std::string& path, const std::vector<std::string>& files,
             const std::string& output, const std::string& bad_samples, track::Terminal& terminal) {
  const artefact::Artefact model(path);
  if (model.takes_text())
    throw Error(Code::kUsage, "a language model predicts no table of answers", path,
                "lehr generate writes text with it, lehr evaluate measures it on a text file");
  std::optional<data::RawImages> images;
  Input input;
  if (model.takes_images()) {
    const auto recipe = recipe_of(model, path);
    images.emplace(files, picture_view(model, recipe));
    take_images(*images, most_left_out(recipe, bad_samples), input);
  } else {
    if (files.size() != 1) throw Error(Code::kUsage, "a table is one CSV file", "--input");
    input =
        input_of(data::read_raw_table(files[0], model.number_columns(), model.string_columns()));
  }
  const auto prediction = predict_all(model, input);
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
  const bool names_files = images && images->holds_pictures();
  csv += names_files ? ",file\n" : "\n";
  const at::Tensor scores = prediction.scores.contiguous();
  const float* value = scores.data_ptr<float>();
  const at::Tensor bad = not_finite(scores);
  const bool* is_bad = bad.const_data_ptr<bool>();
  auto label = prediction.labels.begin();
  auto left_out = input.left_out.begin();
  for (int64_t i = 0; i < input.rows; ++i) {
    const bool is_left_out = left_out != input.left_out.end() && *left_out == i;
    if (is_left_out) ++left_out;  // its cells stay empty
    // nothing is the largest of what is not finite
    const bool has_label = !is_left_out && !*is_bad++;
    if (!classes.empty()) csv += (has_label ? csv_cell(*label) : "") + ",";
    if (!classes.empty() && !is_left_out) ++label;
    for (int64_t j = 0; j < scores.size(1); ++j)
      csv += (j ? "," : "") + (is_left_out ? "" : number(*value++));
    csv += names_files ? "," + csv_cell(images->file(i)) + "\n" : "\n";
  }
  write_file_durably(output, csv);
  terminal.print(fmt::format(
      "{} samples{}: {}", scores.size(0),
      input.left_out.empty() ? "" : fmt::format(", {} left out as bad", input.left_out.size()),
      output));
}

void evaluate_artefact(const std::string& path, const std::vector<std::string>& files, bool as_json,
                       const std::string& bad_samples, track::Terminal& terminal) {
  if (is_language_artefact(path)) return evaluate_text(path, files, as_json, terminal);
  const artefact::Artefact model(path);
  const auto recipe = recipe_of(model, path);
  std::optional<data::RawImages> images;
  Input input;
  at::Tensor targets;
  if (!model.takes_images()) {
    if (files.size() != 1)
      throw Error(Code::kUsage, "a table is one CSV file with its target column", "--data");
    auto table = data::read_raw_table(files[0], model.number_columns(), model.string_columns(),
                                      recipe.get<data::TableFields>().target, model.classes());
    targets = table.targets;
    input = input_of(std::move(table));
  } else {
    if (files.size() > 2) throw Error(Code::kUsage, "give the images, then their labels", "--data");
    // one: a folder with a class per sub-folder
    const bool by_class = files.size() == 1;
    images.emplace(std::vector{files[0]}, picture_view(model, recipe),
                   by_class ? model.classes() : StringList{});
    targets = by_class ? images->targets() : data::read_targets(files[1], model.classes());
    take_images(*images, most_left_out(recipe, bad_samples), input);
  }
  if (!targets.defined())
    throw Error(Code::kData, "the data holds no targets", files[0], "give labels too");
  if (targets.size(0) != input.rows)
    throw Error(Code::kData, fmt::format("{} samples, but {} targets", input.rows, targets.size(0)),
                files.back());
  const auto prediction = predict_all(model, input);
  if (!input.left_out.empty()) {
    std::vector<int64_t> kept;
    for (int64_t row = 0; row < input.rows; ++row)
      if (!std::binary_search(input.left_out.begin(), input.left_out.end(), row))
        kept.push_back(row);
    targets = targets.index_select(0, at::tensor(kept, at::kLong));
  }
  const auto fields = recipe.get<metrics::MetricsFields>();
  auto all = metrics::make_metrics(fields.names, metrics::make_context(fields, model.classes()));
  json figures = {{"samples", prediction.scores.size(0)}};
  if (!input.left_out.empty()) figures["left_out"] = input.left_out.size();
  std::vector<std::vector<std::string>> rows;
  for (auto& metric : all) {
    metric->update(prediction.scores, targets);
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
    const auto& monitor = entry.monitor;
    if (monitor) row["monitor"] = {{"name", monitor->name}, {"value", monitor->value}};
    out["checkpoints"].push_back(row);
    text += fmt::format(
        "  step {:<10}{}{}\n", entry.step,
        monitor ? fmt::format("{} {:.6g}  ", monitor->name.empty() ? "monitor" : monitor->name,
                              monitor->value)
                : "",
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
