#include "engine/run/verbs.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/base/output.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/csv.h"
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
  int64_t rows = 0;  // read so far, those that are left out among them
  // from row `begin` on, but for those that are left out; sets `rows`, to `begin` at the end
  std::function<data::RawBatch(int64_t begin)> read;
  std::vector<int64_t> left_out;
};

// How this model's training read a table.
data::RawColumns raw_columns(const artefact::Artefact& model, const recipe::Recipe& recipe,
                             bool with_target) {
  const auto fields = recipe.get<data::TableFields>();
  return {model.number_columns(),
          model.string_columns(),
          with_target ? fields.target : "",
          with_target ? model.classes() : StringList{},
          fields.delimiter,
          fields.missing_values};
}

// Rows whose categories training has not seen, column by column.
class Unseen {
 public:
  explicit Unseen(const artefact::Artefact& model) : columns_(model.string_columns()) {
    const json statistics = json::parse(model.statistics());
    for (const auto& column : columns_) {
      std::set<std::string>& texts = known_.emplace_back();
      for (const auto& [text, count] : statistics.at("strings").at(column).items())
        texts.insert(text);
    }
    counts_.resize(columns_.size());
    first_.resize(columns_.size());
  }
  void look(const data::RawBatch& rows) {
    rows_ += static_cast<int64_t>(rows.strings.size());
    for (const auto& row : rows.strings)
      for (size_t s = 0; s < columns_.size(); ++s)
        if (!known_[s].contains(row[s]) && counts_[s]++ == 0) first_[s] = row[s];
  }
  void warn() const {
    for (size_t s = 0; s < columns_.size(); ++s)
      if (data::is_share_of_unseen(counts_[s], rows_))
        log_warning(fmt::format("{} of {} rows have a value of '{}' that training has not: {}",
                                counts_[s], rows_, columns_[s], data::cell_text(first_[s])));
  }

 private:
  const StringList columns_;
  std::vector<std::set<std::string>> known_;
  std::vector<int64_t> counts_;
  StringList first_;
  int64_t rows_ = 0;
};

// `input` keeps referring to `table` and `unseen`.
void take_table(data::RawTable& table, Unseen& unseen, Input& input) {
  input.read = [&](int64_t begin) {
    data::RawBatch part = table.read(kBatch);
    unseen.look(part);
    input.rows = begin + part.numbers.size(0);
    return part;
  };
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
  const auto leave_out = [&input, most](int64_t image, const data::BadPicture& why) {
    if (!most)
      throw Error(why.code(), why.message(), why.where(),
                  (why.hint().empty() ? "" : why.hint() + "\n  ") +
                      "--bad-samples skip goes on without it.");
    input.left_out.push_back(image);
    data::check_bad_samples(static_cast<int64_t>(input.left_out.size()), *most, "the input");
    log_warning(fmt::format("left out: {}", why.what()));
  };
  input.read = [&images, &input, leave_out](int64_t begin) {
    data::RawBatch part;
    input.rows = std::min(images.size(), begin + kBatch);
    part.images = images.read(begin, input.rows, leave_out);
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

// Answers the input part by part, in its order; `path`: of the input, for an error.
void predict_all(const artefact::Artefact& model, Input& input, const std::string& path,
                 const std::function<void(const artefact::Prediction& part,
                                          const at::Tensor& targets, int64_t begin)>& take) {
  int64_t answers = 0, bad_answers = 0, first_bad = -1;
  for (int64_t begin = 0;; begin = input.rows) {
    const data::RawBatch raw = input.read(begin);
    if (input.rows == begin) break;
    const auto part = model.predict(raw);
    if (const at::Tensor bad = not_finite(part.scores).nonzero(); bad.numel() > 0) {
      if (bad_answers == 0) first_bad = row_of(input, answers + bad[0].item<int64_t>());
      bad_answers += bad.size(0);
    }
    answers += part.scores.size(0);
    take(part, raw.targets, begin);
  }
  if (input.rows == 0) throw Error(Code::kData, "the input holds no samples", path);
  if (bad_answers > 0)
    log_warning(fmt::format("the output is not finite for {} of {} samples; the first is sample {}",
                            bad_answers, answers, first_bad));
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
  const auto recipe = recipe_of(model, path);
  std::optional<data::RawImages> images;
  std::optional<data::RawTable> table;
  std::optional<Unseen> unseen;
  Input input;
  if (model.takes_images()) {
    images.emplace(files, picture_view(model, recipe));
    take_images(*images, most_left_out(recipe, bad_samples), input);
  } else {
    if (files.size() != 1) throw Error(Code::kUsage, "a table is one CSV file", "--input");
    table.emplace(files[0], raw_columns(model, recipe, false));
    take_table(*table, unseen.emplace(model), input);
  }
  OutputFile file(output, files);
  const auto& classes = model.classes();
  const bool names_files = images && images->holds_pictures();
  bool has_head = false;
  auto said = std::chrono::steady_clock::now();
  predict_all(model, input, files[0], [&](const auto& part, const at::Tensor&, int64_t begin) {
    const at::Tensor scores = part.scores.contiguous();
    const int64_t k = scores.size(1);
    std::string csv;
    if (!std::exchange(has_head, true)) {
      if (classes.empty()) {
        for (int64_t j = 0; j < k; ++j)
          csv += (j ? "," : "") + (k == 1 ? std::string("value") : fmt::format("value_{}", j));
      } else {
        csv = "label";
        for (const auto& name : classes) csv += "," + csv_cell("probability_" + name);
      }
      csv += names_files ? ",file\n" : "\n";
    }
    const float* value = scores.data_ptr<float>();
    const at::Tensor bad = not_finite(scores);
    const bool* is_bad = bad.const_data_ptr<bool>();
    auto label = part.labels.begin();
    auto left_out = std::lower_bound(input.left_out.begin(), input.left_out.end(), begin);
    for (int64_t i = begin; i < input.rows; ++i) {
      const bool is_left_out = left_out != input.left_out.end() && *left_out == i;
      if (is_left_out) ++left_out;  // its cells stay empty
      // nothing is the largest of what is not finite
      const bool has_label = !is_left_out && !*is_bad++;
      if (!classes.empty()) csv += (has_label ? csv_cell(*label) : "") + ",";
      if (!classes.empty() && !is_left_out) ++label;
      for (int64_t j = 0; j < k; ++j) csv += (j ? "," : "") + (is_left_out ? "" : number(*value++));
      csv += names_files ? "," + csv_cell(images->file(i)) + "\n" : "\n";
    }
    file.write(csv);
    if (const auto now = std::chrono::steady_clock::now(); now - said > std::chrono::seconds(10)) {
      terminal.print(fmt::format("{} samples", input.rows));
      said = now;
    }
  });
  file.finish();
  if (unseen) unseen->warn();
  const auto left_out = static_cast<int64_t>(input.left_out.size());
  if (!file.is_standard_output())
    terminal.print(fmt::format("{} samples{}: {}", input.rows - left_out,
                               left_out == 0 ? "" : fmt::format(", {} left out as bad", left_out),
                               output));
}

void evaluate_artefact(const std::string& path, const std::vector<std::string>& files, bool as_json,
                       const std::string& bad_samples, track::Terminal& terminal) {
  if (is_language_artefact(path)) return evaluate_text(path, files, as_json, terminal);
  const artefact::Artefact model(path);
  const auto recipe = recipe_of(model, path);
  std::optional<data::RawImages> images;
  std::optional<data::RawTable> table;
  std::optional<Unseen> unseen;
  Input input;
  at::Tensor targets;  // of images; those of a table come with its rows
  if (!model.takes_images()) {
    if (files.size() != 1)
      throw Error(Code::kUsage, "a table is one CSV file with its target column", "--data");
    table.emplace(files[0], raw_columns(model, recipe, true));
    take_table(*table, unseen.emplace(model), input);
  } else {
    if (files.size() > 2) throw Error(Code::kUsage, "give the images, then their labels", "--data");
    // one: a folder with a class per sub-folder
    const bool by_class = files.size() == 1;
    images.emplace(std::vector{files[0]}, picture_view(model, recipe),
                   by_class ? model.classes() : StringList{});
    targets = by_class ? images->targets() : data::read_targets(files[1], model.classes());
    if (!targets.defined())
      throw Error(Code::kData, "the data holds no targets", files[0], "give labels too");
    if (targets.size(0) != images->size())
      throw Error(Code::kData,
                  fmt::format("{} samples, but {} targets", images->size(), targets.size(0)),
                  files.back());
    take_images(*images, most_left_out(recipe, bad_samples), input);
  }
  std::vector<at::Tensor> all_scores, all_targets;
  predict_all(model, input, files[0],
              [&](const auto& part, const at::Tensor& of_rows, int64_t begin) {
                all_scores.push_back(part.scores);
                if (of_rows.defined()) return all_targets.push_back(of_rows);
                for (int64_t i = begin; i < input.rows; ++i)
                  if (!std::binary_search(input.left_out.begin(), input.left_out.end(), i))
                    all_targets.push_back(targets.slice(0, i, i + 1));
              });
  if (unseen) unseen->warn();
  const at::Tensor scores = at::cat(all_scores, 0);
  targets = at::cat(all_targets, 0);
  const auto fields = recipe.get<metrics::MetricsFields>();
  auto all = metrics::make_metrics(fields.names, metrics::make_context(fields, model.classes()));
  json figures = {{"samples", scores.size(0)}};
  if (!input.left_out.empty()) figures["left_out"] = input.left_out.size();
  std::vector<std::vector<std::string>> rows;
  for (auto& metric : all) {
    metric->update(scores, targets);
    for (const auto& result : metric->compute()) {
      figures[result.name] = result.value ? json(*result.value) : json{{"none", result.why}};
      rows.push_back({result.name,
                      result.value ? fmt::format("{:.6g}", *result.value) : "none: " + result.why});
    }
  }
  if (as_json) {
    print_out(figures.dump(2) + "\n");
  } else {
    terminal.table({fmt::format("{} samples", scores.size(0)), ""}, rows);
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
