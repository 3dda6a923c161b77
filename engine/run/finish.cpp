#include "engine/run/finish.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/log.h"
#include "engine/base/what_is.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/names.h"
#include "engine/checkpoint/saver.h"
#include "engine/data/tokenizer.h"
#include "engine/export/artefact.h"
#include "engine/export/huggingface.h"
#include "engine/export/verify.h"
#include "engine/step/step.h"
#include "engine/track/fields.h"

namespace lehr::run {

using nlohmann::json;

void with_weights(models::Model& model, const NamedTensors& weights,
                  const std::function<void()>& work) {
  at::NoGradGuard no_grad;
  NamedTensors own;
  for (auto& [name, tensor] : model.parameters())
    for (const auto& other : weights)
      if (other.name == name) {
        own.push_back({name, tensor.clone()});
        tensor.copy_(other.tensor);
      }
  work();
  for (auto& [name, tensor] : model.parameters())
    for (const auto& other : own)
      if (other.name == name) tensor.copy_(other.tensor);
}

bool uses_average(const recipe::Recipe& recipe) {
  return recipe.get<artefact::ExportFields>().weights == "ema";
}

static NamedTensors weights_of(const models::Model& model) {
  NamedTensors all = model.parameters();
  for (auto& buffer : model.buffers()) all.push_back(buffer);
  return all;
}

checkpoint::Loaded load_from(const std::string& path) {
  if (file_exists(join_path(path, "model.pt")) || file_exists(join_path(path, "1/model.pt")))
    throw Error(Code::kUsage, "is an artefact, and a run or a checkpoint is wanted", path,
                "lehr predict, evaluate and generate take it as it is, model.init_from the "
                "model.safetensors in it");
  if (file_exists(join_path(path, "MANIFEST.json"))) return checkpoint::load(path);
  if (std::filesystem::is_regular_file(path))
    throw Error(Code::kUsage, "is a file, and a folder is wanted", path,
                "name the folder that it lies in");
  const std::string inside = join_path(path, "checkpoints");
  auto loaded = checkpoint::newest(file_exists(inside) ? inside : path,
                                   [](const std::string& text) { log_warning(text); });
  if (loaded) return std::move(*loaded);
  if (const auto other = artefact::foreign_folder(path)) throw *other;
  throw Error(Code::kCheckpoint, "there is no checkpoint here", path,
              "name a run folder, its checkpoints/, or one step-... folder");
}

void check_pretrained(const recipe::Recipe& recipe, const models::Model& model) {
  const auto fields = recipe.get<models::ModelFields>();
  if (fields.pretrained.empty()) return;
  auto refuse = [&](const std::string& what, const char* hint) {
    return Error(Code::kRecipe, what, recipe.where("model.pretrained"), hint);
  };
  const auto* language = dynamic_cast<const models::LanguageModel*>(&model);
  if (!language)
    throw refuse(fmt::format("model `{}` is no language model", fields.name),
                 "model.init_from takes checkpoints and safetensors files");
  artefact::check_shape(artefact::shape_of(recipe, *language),
                        artefact::read_huggingface_config(fields.pretrained), fields.pretrained);
}

static void load_initial(const recipe::Recipe& recipe, models::Model& model) {
  const auto fields = recipe.get<models::ModelFields>();
  const std::string& path = fields.init_from;
  if (!fields.pretrained.empty()) {
    artefact::load_huggingface(fields.pretrained, dynamic_cast<models::LanguageModel&>(model));
  } else if (path.ends_with(".safetensors")) {
    SafetensorsFile file(path);
    if (const std::string wrapper = file.strip_wrappers(); !wrapper.empty())
      log_info(fmt::format("{}: names are taken without `{}`", path, wrapper));
    checkpoint::restore(file, weights_of(model));
  } else {
    checkpoint::restore(*load_from(path).shards.at("weights"), weights_of(model));
  }
  log_info("weights start from " + (fields.pretrained.empty() ? path : fields.pretrained));
}

static void take_weights_of_lead(models::Model& model, dist::World& world) {
  if (world.size() == 1) return;
  at::NoGradGuard no_grad;
  for (auto& [name, tensor] : weights_of(model)) {
    const at::Tensor host = tensor.detach().cpu().contiguous();
    world.broadcast(host);
    tensor.copy_(host);
  }
}

void initialize_from(const recipe::Recipe& recipe, models::Model& model, dist::World& world) {
  check_pretrained(recipe, model);
  const auto fields = recipe.get<models::ModelFields>();
  if (fields.pretrained.empty() && fields.init_from.empty()) return;
  if (world.is_lead()) load_initial(recipe, model);
  // a run that is named may save and let go while the ranks read: one of them does
  take_weights_of_lead(model, world);
}

track::Values row_values(const std::string& prefix, const Evaluation& evaluation) {
  track::Values values;
  for (const auto& result : evaluation.results)
    if (result.value) values.emplace_back(prefix + "." + result.name, *result.value);
  return values;
}

void print_evaluation(track::Terminal& terminal, const std::string& title,
                      const Evaluation& evaluation, const std::string& note) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& result : evaluation.results)
    rows.push_back(
        {result.name, result.value ? fmt::format("{:.4f}", *result.value) : "none: " + result.why});
  terminal.table(
      {fmt::format("{}, {} samples, {:.1f} s", title, evaluation.samples, evaluation.seconds),
       note},
      rows);
}

static json results_json(const Evaluation& evaluation) {
  json values = json::object();
  for (const auto& result : evaluation.results)
    values[result.name] = result.value ? json(*result.value) : json{{"none", result.why}};
  return values;
}

// the weights that export.weights names, in the live model; returns the step that they are of.
// `must_have`: throws where the best ones are gone, else the last ones stay
static int64_t choose_weights(const recipe::Recipe& recipe, const std::string& checkpoints,
                              const NamedTensors& averaged, const Progress& progress,
                              models::Model& model, bool must_have) {
  const std::string which = recipe.get<artefact::ExportFields>().weights;
  at::NoGradGuard no_grad;
  if (which == "ema") {
    for (auto& [name, tensor] : model.parameters())
      for (const auto& other : averaged)
        if (other.name == name) tensor.copy_(other.tensor);
    return progress.step;
  }
  if (which == "best" && progress.best_step < 0 && progress.evaluated_step >= 0)
    log_warning(
        fmt::format("no evaluation gave a finite {}, so none is the best: the last weights "
                    "are taken, of step {}",
                    progress.monitored, progress.step));
  if (which == "last" || progress.best_step < 0 || progress.best_step == progress.step)
    return progress.step;
  const std::string best = join_path(checkpoints, checkpoint::step_name(progress.best_step));
  if (file_exists(best)) {
    checkpoint::restore(*checkpoint::load(best).shards.at("weights"), weights_of(model));
    return progress.best_step;
  }
  const std::string gone = fmt::format("the best checkpoint, step {}, is gone", progress.best_step);
  if (must_have) throw Error(Code::kCheckpoint, gone, checkpoints, "add --set export.weights=last");
  log_warning(
      fmt::format("{}: {}; the weights of step {} are exported", checkpoints, gone, progress.step));
  return progress.step;
}

// The model itself, or what it holds on a device in one on the CPU, where artefacts are proved.
static std::shared_ptr<models::Model> on_cpu(const std::shared_ptr<models::Model>& model,
                                             const Parts& parts) {
  models::ModelContext context = parts.context;
  if (context.options.device().is_cpu()) return model;
  at::NoGradGuard no_grad;
  context.options = context.options.device(at::kCPU);
  auto copy = models::make_model(parts.recipe, context);
  NamedTensors to = weights_of(*copy), from = weights_of(*model);
  for (size_t i = 0; i < to.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  return copy;
}

// publishes ARTEFACT of the model's present weights
static void publish(const std::shared_ptr<models::Model>& model, Parts& parts, const json& metrics,
                    const std::string& output, const json& origin) {
  artefact::ExportRequest request;
  request.model = on_cpu(model, parts);
  request.dataset = parts.dataset;
  request.loss = parts.recipe.get<step::LossFields>().name;
  request.recipe_yaml = parts.recipe.resolved();
  request.metrics_json = metrics.dump(2) + "\n";
  request.output = output;
  request.layout = parts.recipe.get<artefact::ExportFields>().layout;
  request.origin_json = origin.dump();
  artefact::export_artefact(request);
}

// A report that cannot be written ends no run.
static void try_to_write(const std::string& path,
                         const std::function<void(const std::string&)>& write) {
  try {
    write(path);
  } catch (const std::exception& e) {
    log_warning(fmt::format("{} was not written: {}", path, e.what()));
  }
}

void finish_run(Finished& f, track::Terminal& terminal) {
  const recipe::Recipe& recipe = f.parts.recipe;
  json metrics = {{"steps", f.progress.step},
                  {"samples", f.progress.samples},
                  {"train_seconds", f.progress.train_seconds},
                  {"checkpoint_blocked_seconds", f.blocked_s}};
  if (f.skipped_steps > 0) metrics["skipped_steps"] = f.skipped_steps;
  int64_t step = 0;
  if (f.world.is_lead())
    step = choose_weights(recipe, f.folder.checkpoints(), f.averaged, f.progress, *f.model, false);
  take_weights_of_lead(*f.model, f.world);
  metrics["weights_of_step"] = step;
  json bad_samples = json::object();
  if (f.progress.most_bad_samples > 0) bad_samples["train"] = f.progress.most_bad_samples;
  for (auto split : {data::Split::kValidation, data::Split::kTest}) {
    if (f.parts.dataset->size(split) == 0) continue;
    const Evaluation evaluation = evaluate(*f.model, f.parts, split, f.device, f.world);
    if (!f.world.is_lead()) continue;
    if (!evaluation.non_finite.empty()) log_warning(evaluation.non_finite);
    print_evaluation(terminal,
                     fmt::format("{} split, weights of step {}", data::to_string(split), step),
                     evaluation, "");
    metrics[data::to_string(split)] = results_json(evaluation);
    if (evaluation.bad_samples > 0) bad_samples[data::to_string(split)] = evaluation.bad_samples;
  }
  if (!f.world.is_lead()) return;  // the artefact is the lead's work
  if (!bad_samples.empty()) {
    metrics["bad_samples"] = bad_samples;
    std::vector<std::string> counts;
    for (const auto& [split, count] : bad_samples.items())
      counts.push_back(fmt::format("{} {}", count.dump(), split));
    terminal.print(fmt::format("left out as bad: {} (log.txt names those of the lead rank)",
                               fmt::join(counts, ", ")));
  }
  try_to_write(f.folder.file("metrics.json"),
               [&](const std::string& path) { write_file_durably(path, metrics.dump(2) + "\n"); });
  if (recipe.get<artefact::ExportFields>().enabled) {
    const std::string output = f.folder.file("artefact");
    remove_tree(output);  // of an export that was cut before the run was marked finished
    publish(f.model, f.parts, metrics, output, {{"run", f.folder.path}, {"step", step}});
    terminal.print("artefact: " + output);
  }
  track::Report report;
  report.title = f.folder.path;
  report.recipe_yaml = recipe.resolved();
  report.summary_json = metrics.dump();
  report.metrics_path = f.folder.file("metrics.jsonl");
  try_to_write(f.folder.file("report.html"),
               [&](const std::string& path) { track::write_report(path, report); });
  metrics["reason"] = f.reason;
  metrics["data"] = f.parts.dataset->info().fingerprint;
  mark_finished(f.folder, metrics.dump(2) + "\n");
  const std::string skipped = f.skipped_steps > 0 ? fmt::format("{} of {} steps were skipped; ",
                                                                f.skipped_steps, f.progress.step)
                                                  : "";
  terminal.print(fmt::format("finished in {:.1f} s of training, by {}; {}everything is in {}",
                             f.progress.train_seconds, f.reason, skipped, f.folder.path));
}

std::string nothing_more(const RunFolder& folder, const recipe::Recipe& recipe) {
  const json results = json::parse(read_file(folder.file("finished.json")));
  const std::string reason = results.value("reason", "an earlier release");
  const std::string file = folder.file("recipe.yaml");
  std::vector<std::string> asked, unheeded;
  for (const auto& change :
       stored_recipe(read_file(file), file, {}, recipe.folder()).differences(recipe)) {
    // of the free fields the one that has ended it
    const bool ended_it = change.key == reason || (reason.starts_with("early_stopping.") &&
                                                   change.key.starts_with("early_stopping."));
    (change.exact || ended_it ? asked : unheeded).push_back(change.text());
  }
  if (asked.empty() && results.contains("data"))
    if (const auto now = data::open_dataset(recipe)->info().fingerprint; now != results["data"])
      asked.push_back(
          fmt::format("data: {} then, {} now", results["data"].get<std::string>(), now));
  if (!asked.empty())
    throw Error(
        Code::kUsage,
        fmt::format("this run is finished (by {}), and something else is asked of it:\n  {}",
                    reason, fmt::join(asked, "\n  ")),
        folder.path,
        fmt::format("--run NEW begins another run, --fresh without --run too; with --set "
                    "model.init_from={0} it starts from these weights, with --set "
                    "checkpoint.resume={0} --allow-approximate-resume it goes on from all of this",
                    folder.path));
  std::string line = fmt::format(
      "{} is finished (by {}); --fresh begins another run of this recipe", folder.path, reason);
  if (!unheeded.empty())
    line += fmt::format(
        "\n  without effect on it: {}; lehr export {} --output NEW --set FIELD=VALUE "
        "makes another artefact",
        fmt::join(unheeded, ", "), folder.path);
  return line;
}

// The recipe of a checkpoint, with its paths where things lie now: a project may have been moved
// with its data, or a run out of its project.
static recipe::Recipe recipe_of(const checkpoint::Loaded& loaded,
                                const std::vector<std::string>& overrides) {
  const std::string origin = loaded.path + "/recipe.yaml", &text = loaded.texts.at("recipe.yaml");
  const std::string run = join_path(loaded.path, "../..");
  std::string missing;
  for (const auto& folder : recipe_folders_of(loaded.facts, run)) {
    const auto recipe = stored_recipe(text, origin, overrides, folder);
    const auto paths = recipe.paths("data");
    const auto gone = std::find_if_not(paths.begin(), paths.end(), file_exists);
    if (gone == paths.end()) {
      for (const auto& change : stored_recipe(text, origin, {}, folder).differences(recipe))
        if (change.exact && !(change.is_path && change.key.starts_with("data.")))
          throw Error(Code::kUsage, "this cannot be changed after training: " + change.text(),
                      "--set", "paths of data can, and fields that are free to change");
      return recipe;
    }
    missing += (missing.empty() ? "" : ", nor ") + *gone;
  }
  throw Error(Code::kData, "the data of this run are not there: " + missing, loaded.path,
              "add --set data.train_file=FILE, or what else of its data has moved");
}

// Other data would give the model another preprocessing than it was trained with.
static void require_same_data(const checkpoint::Loaded& loaded, const data::DataInfo& info) {
  const Surroundings then = surroundings_of(loaded.facts);
  if (then.data == info.fingerprint) return;
  const std::string what = "the data are not those that this model was trained on";
  // another release may take the fingerprint otherwise
  if (then.build == build_stamp())
    throw Error(Code::kData, what, loaded.path,
                "put them back, or name a copy with --set data....");
  log_warning(loaded.path + ": " + what + ", or this release sees them otherwise");
}

Reopened reopen(const std::string& source, const std::vector<std::string>& overrides) {
  // a run exports the weights that its recipe names; a checkpoint exports itself
  const bool is_run = !file_exists(join_path(source, "MANIFEST.json"));
  checkpoint::Loaded loaded = load_from(source);
  const auto recipe = recipe_of(loaded, overrides);
  Reopened run;
  run.parts =
      std::make_shared<Parts>(open_parts(recipe, 1, surroundings_of(loaded.facts).vocabulary));
  require_same_data(loaded, run.parts->dataset->info());
  auto model = run.model = models::make_model(recipe, run.parts->context);
  const auto take = [&] {
    checkpoint::restore(*loaded.shards.at("weights"), weights_of(*model));
    run.checkpoint = loaded.path;
    run.step = loaded.step;
    if (!is_run) return;
    NamedTensors averaged;
    if (uses_average(recipe)) {
      for (const auto& [name, tensor] : model->parameters())
        averaged.push_back({"ema." + name, at::empty_like(tensor)});
      checkpoint::restore(loaded, "state", averaged);
      for (auto& average : averaged) average.name = average.name.substr(4);
    }
    const std::string checkpoints = loaded.path.substr(0, loaded.path.rfind('/'));
    run.step =
        choose_weights(recipe, checkpoints, averaged, progress_of(loaded.facts), *model, true);
  };
  for (;;) {
    try {
      take();
      return run;
    } catch (const Error&) {
      // a run that trains meanwhile lets its best go for a better one
      const int64_t before = loaded.step;
      loaded = load_from(source);
      if (loaded.step == before) throw;
    }
  }
}

Pretrained open_pretrained(const std::string& folder) {
  const artefact::Shape shape = artefact::read_huggingface_config(folder);
  const std::string tokenizer_path = join_path(folder, "tokenizer.json");
  std::string tokenizer, source = "source: tokens\n  train_tokens: []";
  if (file_exists(tokenizer_path)) {
    const std::string file = read_file(tokenizer_path);
    tokenizer = plain_text(file, tokenizer_path, Code::kCheckpoint);
    const int64_t ids = data::parse_tokenizer(tokenizer, tokenizer_path)->vocabulary();
    if (ids > shape.vocabulary)
      throw Error(
          Code::kCheckpoint,
          fmt::format("its {} tokens are more than the {} of config.json", ids, shape.vocabulary),
          tokenizer_path, "they are of different models");
    source = "source: text\n  train_file: \"\"\n  tokenizer: bpe\n  tokenizer_file: tokenizer.json";
  }
  const std::string text = fmt::format(
      "data:\n  {}\n  context: {}\n{}"
      "training:\n  global_batch_size: 1\nloss:\n  name: cross_entropy\n",
      source, shape.positions, artefact::recipe_of(shape));
  auto recipe =
      recipe::Recipe::parse(text, join_path(folder, "config.json"), {}, all_sections(), folder);
  models::ModelContext context;
  context.vocabulary = context.outputs = shape.vocabulary;
  context.context = shape.positions;
  context.options = at::TensorOptions().dtype(at::kFloat);
  const auto model =
      std::dynamic_pointer_cast<models::LanguageModel>(models::make_model(recipe, context));
  artefact::load_huggingface(folder, *model);
  return {shape, std::move(tokenizer), std::move(recipe), model};
}

static void export_pretrained(const std::string& folder, const std::string& output) {
  const Pretrained pretrained = open_pretrained(folder);
  artefact::ExportRequest request;
  request.model = pretrained.model;
  request.dataset = artefact::random_text(pretrained.shape, pretrained.tokenizer);
  request.loss = "cross_entropy";
  request.recipe_yaml = pretrained.recipe.resolved();
  request.metrics_json = "{}\n";
  request.output = output;
  request.origin_json = json{{"huggingface", folder}}.dump();
  artefact::export_artefact(request);
}

void export_run(const std::string& source, const std::string& output, track::Terminal& terminal,
                const std::string& format, const std::vector<std::string>& overrides) {
  if (file_exists(output))
    throw Error(Code::kUsage, "the output exists already", output,
                "name a new folder, or remove this one");
  if (artefact::is_huggingface(source)) {
    if (format == "huggingface")
      throw Error(Code::kUsage, "this is a Hugging Face folder already", source, "copy it");
    export_pretrained(source, output);
    terminal.print("artefact: " + output);
    return;
  }
  if (format == "huggingface") {
    const Reopened run = reopen(source, overrides);
    const auto* model = dynamic_cast<const models::LanguageModel*>(run.model.get());
    if (!model)
      throw Error(Code::kUsage, "this run's model is no language model", source,
                  "leave --format out: artefacts take every model");
    artefact::require_finite(*model, output);
    artefact::export_huggingface(run.parts->recipe, *model, run.parts->dataset->info().tokenizer,
                                 output);
    terminal.print("Hugging Face folder: " + output);
    return;
  }
  const Reopened run = reopen(source, overrides);
  Parts& parts = *run.parts;
  json metrics = {{"weights_of_step", run.step}};
  for (auto split : {data::Split::kValidation, data::Split::kTest}) {
    if (parts.dataset->size(split) == 0) continue;
    const Evaluation evaluation = evaluate(*run.model, parts, split, nullptr);
    if (!evaluation.non_finite.empty()) log_warning(evaluation.non_finite);
    print_evaluation(terminal, data::to_string(split), evaluation, "");
    metrics[data::to_string(split)] = results_json(evaluation);
  }
  publish(run.model, parts, metrics, output, {{"checkpoint", run.checkpoint}, {"step", run.step}});
  terminal.print("artefact: " + output);
}

}  // namespace lehr::run
