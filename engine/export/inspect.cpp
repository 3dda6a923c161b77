// What `lehr inspect` says of an artefact: its manifest in a person's words.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/base/files.h"
#include "engine/export/artefact.h"
#include "engine/export/layout.h"
#include "engine/export/manifest.h"

namespace lehr::artefact {
namespace {

using Json = nlohmann::ordered_json;

std::string tensors_text(const Json& tensors) {
  std::vector<std::string> parts;
  for (const auto& tensor : tensors) {
    std::vector<std::string> shape;
    for (const auto& d : tensor.at("shape"))
      shape.push_back(d.is_string() ? d.get<std::string>() : d.dump());
    parts.push_back(fmt::format("{} {} [{}]", tensor.at("name").get<std::string>(),
                                tensor.at("dtype").get<std::string>(), fmt::join(shape, ", ")));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string some_of(const Json& list) {
  constexpr size_t kShown = 10;
  std::vector<std::string> words;
  for (size_t i = 0; i < list.size() && i < kShown; ++i)
    words.push_back(list[i].get<std::string>());
  const std::string more =
      list.size() > kShown ? fmt::format(", ... {} more", list.size() - kShown) : "";
  return fmt::format("{}{}", fmt::join(words, ", "), more);
}

}  // namespace

Description describe(const std::string& path) {
  const Artefact artefact(path);
  Json json = Json::parse(artefact.manifest());
  const Json& facts = json["facts"];
  const double replayed = artefact.replay_golden();
  std::string text = fmt::format(
      "{}: an artefact of Lehr, every file verified, tensors and operators checked\n", path);
  auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format("  {:<10} {}\n", name, value);
  };
  line("task", fmt::format("{}, trained with {}", facts.value("task", ""), artefact.loss()));
  line("takes", tensors_text(facts["signature"]["inputs"]));
  line("answers", tensors_text(facts["signature"]["outputs"]));
  line("classes", some_of(facts["classes"]));
  line("numbers", some_of(facts["number_columns"]));
  line("strings", some_of(facts["string_columns"]));
  line("parameters", facts["parameters"].dump());
  line("LibTorch", facts.value("libtorch", ""));
  line("origin", facts["origin"].dump());
  line("golden", fmt::format("{} samples, {}", facts["verified"]["golden_samples"].dump(),
                             replayed == 0   ? "answered here with the same bits"
                             : replayed <= 1 ? "answered here within their tolerance"
                                             : "NOT answered here as when it was made"));
  for (const auto& file : json["files"])
    line("file",
         fmt::format("{:<20} {:>12} bytes  {}", file["name"].get<std::string>(),
                     file["bytes"].dump(), file["sha256"].get<std::string>().substr(0, 16)));
  json["golden_replay"] = {{"share_of_tolerance", replayed}, {"ok", replayed <= 1}};
  return {text, json.dump(2)};
}

}  // namespace lehr::artefact
