#include "engine/run/facts.h"

#include <ATen/Version.h>
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/device.h"

namespace lehr::run {

using nlohmann::json;
namespace fs = std::filesystem;

// links followed, so that `..` means what it will mean after a move
static fs::path real(const std::string& folder) {
  return fs::weakly_canonical(fs::absolute(folder.empty() ? "." : folder));
}

static json named(const std::string& name, const std::optional<double>& value) {
  return value ? json{{"name", name}, {"value", *value}} : json(nullptr);
}

// Older builds wrote the number alone, and null for NaN.
static std::optional<double> value_of(const json& stored) {
  if (stored.is_number()) return stored.get<double>();
  if (stored.is_object()) return stored.at("value").get<double>();
  return std::nullopt;
}

Surroundings surroundings(const std::string& device, int64_t threads,
                          const std::string& data_fingerprint, int64_t world) {
  return {build_stamp(), device, at::get_cpu_capability(), data_fingerprint, threads, world};
}

std::string facts_json(const Progress& p, const Surroundings& around,
                       const std::string& step_scalars, const std::string& recipe_folder,
                       const std::string& run_folder) {
  const fs::path folder = real(recipe_folder);
  json facts = {{"progress",
                 {{"train_seconds", p.train_seconds},
                  {"best", named(p.monitored, p.best)},
                  {"best_step", p.best_step},
                  {"improved", named(p.monitored, p.improved)},
                  {"bad_evaluations", p.bad_evaluations},
                  {"evaluated_step", p.evaluated_step},
                  {"evaluation_cut", p.evaluation_cut},
                  {"ended_early", p.ended_early},
                  {"interval_loss", p.interval_loss},
                  {"interval_samples", p.interval_samples},
                  {"bad_samples", p.bad_samples},
                  {"most_bad_samples", p.most_bad_samples}}},
                {"surroundings",
                 {{"build", around.build},
                  {"device", around.device},
                  {"cpu_capability", around.cpu_capability},
                  {"data", around.data},
                  {"threads", around.threads},
                  {"world", around.world},
                  {"vocabulary", around.vocabulary}}},
                {"optimizer", json::parse(step_scalars)},
                {"recipe_folder", folder.string()},
                {"recipe_folder_from_run", folder.lexically_relative(real(run_folder)).string()},
                {"step", p.step},
                {"samples", p.samples}};
  if (p.monitor) facts["monitor"] = named(p.monitored, p.monitor);
  return facts.dump();
}

Progress progress_of(const std::string& text) {
  const json facts = json::parse(text);
  const json& stored = facts.at("progress");
  Progress p;
  p.step = facts.at("step");
  p.samples = facts.at("samples");
  p.train_seconds = stored.at("train_seconds");
  p.best = value_of(stored.at("best"));
  if (stored.at("best").is_object()) p.monitored = stored["best"].at("name");
  if (p.best) p.best_step = stored.at("best_step");
  p.improved = stored.contains("improved") ? value_of(stored["improved"]) : p.best;
  p.bad_evaluations = stored.at("bad_evaluations");
  p.evaluated_step = stored.at("evaluated_step");
  p.evaluation_cut = stored.value("evaluation_cut", false);
  p.ended_early = stored.at("ended_early");
  p.interval_loss = stored.at("interval_loss");
  p.interval_samples = stored.at("interval_samples");
  p.bad_samples = stored.value("bad_samples", int64_t{0});
  p.most_bad_samples = stored.value("most_bad_samples", int64_t{0});
  if (facts.contains("monitor")) p.monitor = value_of(facts.at("monitor"));
  return p;
}

std::vector<std::string> recipe_folders_of(const std::string& text, const std::string& run_folder) {
  const json facts = json::parse(text);
  std::vector<std::string> folders;
  if (const std::string there = facts.value("recipe_folder_from_run", ""); !there.empty())
    folders.push_back((real(run_folder) / there).lexically_normal().string());
  folders.push_back(facts.at("recipe_folder"));
  return folders;
}

Surroundings surroundings_of(const std::string& text) {
  const json then = json::parse(text).at("surroundings");
  return {
      then.at("build"),   then.at("device"), then.at("cpu_capability"),           then.at("data"),
      then.at("threads"), then.at("world"),  then.value("vocabulary", int64_t{0})};
}

std::string step_scalars_of(const std::string& text) {
  return json::parse(text).at("optimizer").dump();
}

std::vector<std::string> differences(const std::string& text, const Surroundings& now,
                                     const recipe::Recipe& then_recipe,
                                     const recipe::Recipe& now_recipe) {
  const Surroundings then = surroundings_of(text);
  std::vector<std::string> lines;
  for (const auto& field : then_recipe.differences(now_recipe)) {
    // what these come to is compared below: the data's bytes, the device, the threads that decide
    const bool data_path = field.is_path && field.key.starts_with("data.");
    const bool below =
        data_path || field.key == "training.device" || field.key == "training.threads";
    if (field.exact && !below) lines.push_back(field.text());
  }
  auto compare = [&](const char* key, const auto& before, const auto& after) {
    if (before != after) lines.push_back(fmt::format("{}: {} then, {} now", key, before, after));
  };
  compare("build", then.build, now.build);
  compare("device", then.device, now.device);
  compare("data", then.data, now.data);
  if (now.device != "cpu") return lines;
  compare("cpu_capability", then.cpu_capability, now.cpu_capability);
  compare("threads", then.threads, now.threads);
  return lines;
}

}  // namespace lehr::run
