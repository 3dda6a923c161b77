#include "engine/export/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"

namespace lehr::artefact {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint64_t kManifestLimit = 16 << 20;
// the digest sits at a fixed place, and is taken over the text with zeros there
constexpr std::string_view kOpening = "{\"sha256\": \"";
constexpr size_t kDigits = 64;

bool is_plain_name(const std::string& name) {
  if (name == kManifestName) return false;
  const fs::path path(name);
  if (name.empty() || path.is_absolute() || name.find('\0') != std::string::npos) return false;
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) {
    return part.empty() || part == "." || part == "..";
  });
}

// every path below folder, as it would be named in the manifest; links are never followed
std::vector<std::string> names_below(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code problem;
  fs::recursive_directory_iterator at(folder, problem), end;
  while (!problem && at != end) {
    const std::string name = fs::path(at->path()).lexically_relative(folder).generic_string();
    const auto type = at->symlink_status(problem).type();
    if (problem) break;
    if (type == fs::file_type::regular) {
      names.push_back(name);
    } else if (type != fs::file_type::directory) {
      throw Error(Code::kCheckpoint, "is neither a plain file nor a folder",
                  join_path(folder, name), "an artefact holds plain files only; remove it");
    }
    at.increment(problem);
  }
  if (problem)
    throw Error(Code::kCheckpoint, "cannot be listed: " + problem.message(), folder,
                "name the folder of an artefact, e.g. runs/NAME/artefact");
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::string to_text(const Manifest& manifest) {
  const Json facts = Json::parse(manifest.facts.empty() ? "{}" : manifest.facts, nullptr, false);
  if (!facts.is_object())
    throw Error(Code::kInternal, "the facts of an artefact are no JSON object");
  std::string files;
  for (const auto& file : manifest.files)
    files += (files.empty() ? "\n" : ",\n") +
             Json{{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}}.dump();
  std::string text = fmt::format(
      "{}{}\",\n\"format\": {},\n\"kind\": \"artefact\",\n\"facts\": {},\n\"files\": [{}]}}\n",
      kOpening, std::string(kDigits, '0'), kFormat, facts.dump(), files);
  return text.replace(kOpening.size(), kDigits, sha256(text));
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  auto refuse = [&](const std::string& why, const std::string& hint = "export the model again") {
    return Error(Code::kCheckpoint, why, path, hint);
  };
  if (text.size() < kOpening.size() + kDigits || text.compare(0, kOpening.size(), kOpening) != 0)
    throw refuse("damaged: it does not begin like a manifest");
  std::string blank = text;
  blank.replace(kOpening.size(), kDigits, kDigits, '0');
  if (sha256(blank) != text.substr(kOpening.size(), kDigits))
    throw refuse("damaged: its SHA-256 does not match its text");
  try {
    const Json json = Json::parse(text);
    if (!json.contains("kind") || json["kind"] != "artefact")
      throw refuse("is the manifest of something else", "name the folder of an artefact");
    if (json.at("format") != kFormat)
      throw refuse(
          fmt::format("has format {}, and this build reads {}", json["format"].dump(), kFormat),
          "use the release of Lehr that wrote it, or a newer one");
    if (!json.at("facts").is_object()) throw refuse("its facts are no JSON object");
    Manifest manifest;
    manifest.facts = json["facts"].dump();
    std::set<std::string> names;
    for (const auto& file : json.at("files")) {
      FileRecord record{file.at("name").get<std::string>(), file.at("bytes").get<uint64_t>(),
                        file.at("sha256").get<std::string>()};
      if (!is_plain_name(record.name)) throw refuse("a file has no plain name");
      if (!names.insert(record.name).second)
        throw refuse("names the file " + record.name + " twice");
      manifest.files.push_back(std::move(record));
    }
    return manifest;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {  // of the JSON library
    throw refuse(std::string("is no manifest: ") + e.what());
  }
}

std::vector<FileRecord> records_of(const std::string& folder) {
  std::vector<FileRecord> records;
  for (const auto& name : names_below(folder)) {
    if (name == kManifestName) continue;
    const std::string path = join_path(folder, name);
    records.push_back({name, fs::file_size(path), sha256_of_file(path)});
  }
  return records;
}

Manifest verify_folder(const std::string& folder) {
  const std::string path = join_path(folder, kManifestName);
  if (!file_exists(path))
    throw Error(Code::kCheckpoint, "there is no artefact here: MANIFEST.json is missing", folder,
                "name the folder of an artefact, e.g. runs/NAME/artefact");
  std::vector<std::string> names = names_below(folder);
  Manifest manifest = parse_manifest(read_file(path, kManifestLimit), path);
  const std::string hint = "copy the artefact again, or export it again";
  for (const auto& file : manifest.files) {
    const std::string where = join_path(folder, file.name);
    if (!std::binary_search(names.begin(), names.end(), file.name))
      throw Error(Code::kCheckpoint, "is missing", where, hint);
    if (const uint64_t bytes = fs::file_size(where); bytes != file.bytes)
      throw Error(Code::kCheckpoint,
                  fmt::format("has {} bytes, and its manifest says {}", bytes, file.bytes), where,
                  hint);
    if (sha256_of_file(where) != file.sha256)
      throw Error(Code::kCheckpoint, "damaged: its SHA-256 is not the manifest's", where, hint);
  }
  for (const auto& name : names)
    if (name != kManifestName &&
        std::none_of(manifest.files.begin(), manifest.files.end(),
                     [&](const FileRecord& file) { return file.name == name; }))
      throw Error(Code::kCheckpoint, "is not in the manifest", join_path(folder, name),
                  "remove it, or " + hint);
  return manifest;
}

}  // namespace lehr::artefact
