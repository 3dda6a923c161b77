#include "engine/run/facts.h"

#include <ATen/Version.h>
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/device.h"

namespace lehr::run {

using nlohmann::json;

static json number(const std::optional<double>& value) {
  return value ? json(*value) : json(nullptr);
}

static std::optional<double> number(const json& value) {
  if (value.is_null()) return std::nullopt;
  return value.get<double>();
}

Surroundings surroundings(const std::string& device, int64_t threads,
                          const std::string& data_fingerprint, int64_t world) {
  return {build_stamp(), device, at::get_cpu_capability(), data_fingerprint, threads, world};
}

std::string facts_json(const Progress& p, const Surroundings& around,
                       const std::string& step_scalars, const std::string& recipe_folder) {
  json facts = {
      {"progress",
       {{"train_seconds", p.train_seconds},
        {"best", number(p.best)},
        {"best_step", p.best_step},
        {"bad_evaluations", p.bad_evaluations},
        {"evaluated_step", p.evaluated_step},
        {"ended_early", p.ended_early},
        {"interval_loss", p.interval_loss},
        {"interval_samples", p.interval_samples}}},
      {"surroundings",
       {{"build", around.build},
        {"device", around.device},
        {"cpu_capability", around.cpu_capability},
        {"data", around.data},
        {"threads", around.threads},
        {"world", around.world},
        {"vocabulary", around.vocabulary}}},
      {"optimizer", json::parse(step_scalars)},
      {"recipe_folder", std::filesystem::absolute(recipe_folder.empty() ? "." : recipe_folder)
                            .lexically_normal()
                            .string()},
      {"step", p.step},
      {"samples", p.samples}};
  if (p.monitor) facts["monitor"] = *p.monitor;
  return facts.dump();
}

Progress progress_of(const std::string& text) {
  const json facts = json::parse(text);
  const json& stored = facts.at("progress");
  Progress p;
  p.step = facts.at("step");
  p.samples = facts.at("samples");
  p.train_seconds = stored.at("train_seconds");
  p.best = number(stored.at("best"));
  p.best_step = stored.at("best_step");
  p.bad_evaluations = stored.at("bad_evaluations");
  p.evaluated_step = stored.at("evaluated_step");
  p.ended_early = stored.at("ended_early");
  p.interval_loss = stored.at("interval_loss");
  p.interval_samples = stored.at("interval_samples");
  if (facts.contains("monitor")) p.monitor = number(facts.at("monitor"));
  return p;
}

std::string recipe_folder_of(const std::string& text) {
  return json::parse(text).at("recipe_folder");
}

int64_t world_of(const std::string& text) {
  return json::parse(text).at("surroundings").at("world");
}

int64_t vocabulary_of(const std::string& text) {
  return json::parse(text).at("surroundings").value("vocabulary", int64_t{0});
}

std::string step_scalars_of(const std::string& text) {
  return json::parse(text).at("optimizer").dump();
}

std::vector<std::string> differences(const std::string& text, const Surroundings& now,
                                     const recipe::Recipe& then_recipe,
                                     const recipe::Recipe& now_recipe) {
  const json facts = json::parse(text);
  const json& then = facts.at("surroundings");
  std::vector<std::string> lines = now_recipe.differences(then_recipe, /*exact_only=*/true);
  auto compare = [&](const char* key, const auto& value) {
    if (then.at(key) != json(value))
      lines.push_back(
          fmt::format("{}: {} then, {} now", key, then.at(key).dump(), json(value).dump()));
  };
  compare("build", now.build);
  compare("device", now.device);
  compare("cpu_capability", now.cpu_capability);
  compare("data", now.data);
  compare("threads", now.threads);
  return lines;
}

}  // namespace lehr::run
