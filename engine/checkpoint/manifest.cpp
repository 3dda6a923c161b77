#include "engine/checkpoint/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/base/error.h"
#include "engine/base/hash.h"

namespace lehr::checkpoint {
namespace {

using Json = nlohmann::ordered_json;  // facts keep their order

// the digest sits at a fixed place, and is taken over the text with zeros there
constexpr std::string_view kOpening = "{\"sha256\": \"";
constexpr size_t kDigits = 64;

std::string digest_of(std::string text) {
  text.replace(kOpening.size(), kDigits, kDigits, '0');
  return sha256(text);
}

// one record a line, so that a person can read and compare manifests
std::string lines(const std::vector<Json>& records) {
  std::string text;
  for (const auto& record : records) text += (text.empty() ? "\n" : ",\n") + record.dump();
  return text;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name != kManifestName &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

int64_t whole(const Json& json, const char* key) {
  const Json& value = json.at(key);
  if (!value.is_number_integer() || value.get<int64_t>() < 0)
    throw std::runtime_error(fmt::format("'{}' is not a whole number", key));
  return value.get<int64_t>();
}

Json to_json(const FileRecord& file) {
  if (file.shard.empty()) return {{"name", file.name}, {"bytes", file.bytes}, {"xxh3", file.xxh3}};
  return {{"name", file.name},
          {"shard", file.shard},
          {"bytes", file.bytes},
          {"header_bytes", file.header_bytes},
          {"header_xxh3", file.xxh3}};
}

FileRecord file_from(const Json& json) {
  FileRecord file;
  file.name = json.at("name").get<std::string>();
  file.bytes = whole(json, "bytes");
  if (json.contains("shard")) {
    file.shard = json.at("shard").get<std::string>();
    file.header_bytes = whole(json, "header_bytes");
    file.xxh3 = json.at("header_xxh3").get<std::string>();
    if (file.shard.empty() || file.header_bytes > file.bytes)
      throw std::runtime_error(file.name + " has a wrong shard or header");
  } else {
    file.xxh3 = json.at("xxh3").get<std::string>();
  }
  if (!is_plain_name(file.name)) throw std::runtime_error("a file has no plain name");
  return file;
}

Json to_json(const SliceRecord& slice) {
  return {{"name", slice.name},     {"dtype", slice.dtype},   {"shape", slice.shape},
          {"offset", slice.offset}, {"extent", slice.extent}, {"file", slice.file},
          {"xxh3", slice.xxh3}};
}

SliceRecord slice_from(const Json& json) {
  SliceRecord slice;
  slice.name = json.at("name").get<std::string>();
  slice.dtype = json.at("dtype").get<std::string>();
  slice.shape = json.at("shape").get<std::vector<int64_t>>();
  slice.offset = json.at("offset").get<std::vector<int64_t>>();
  slice.extent = json.at("extent").get<std::vector<int64_t>>();
  slice.file = json.at("file").get<std::string>();
  slice.xxh3 = json.at("xxh3").get<std::string>();
  const size_t dimensions = slice.shape.size();
  bool is_rows = slice.extent.size() == dimensions && slice.offset.size() == dimensions;
  for (size_t d = 0; is_rows && d < dimensions; ++d)
    is_rows = slice.offset[d] >= 0 && slice.extent[d] >= 0 &&
              (d == 0 ? slice.offset[d] <= slice.shape[d] - slice.extent[d]
                      : slice.extent[d] == slice.shape[d]);
  if (!is_rows)
    throw std::runtime_error("tensor '" + slice.name +
                             "' is cut otherwise than by rows, which this build does not read");
  return slice;
}

// Throws when rows of a tensor are missing or there twice. `slices`: of one shard.
void require_all_rows(const std::vector<SliceRecord>& slices) {
  std::map<std::string, std::vector<const SliceRecord*>> parts;
  for (const auto& slice : slices) parts[slice.name].push_back(&slice);
  for (auto& [name, of_one] : parts) {
    if (of_one.size() == 1 && of_one[0]->is_whole()) continue;
    if (of_one[0]->shape.empty()) throw std::runtime_error("tensor '" + name + "' is there twice");
    std::sort(of_one.begin(), of_one.end(), [](const SliceRecord* a, const SliceRecord* b) {
      return a->offset[0] < b->offset[0];
    });
    int64_t next = 0;
    for (const SliceRecord* part : of_one) {
      if (part->shape != of_one[0]->shape || part->dtype != of_one[0]->dtype)
        throw std::runtime_error("the parts of tensor '" + name + "' are of different tensors");
      if (part->offset[0] != next)
        throw std::runtime_error(fmt::format("row {} of tensor '{}' is {}",
                                             std::min(next, part->offset[0]), name,
                                             part->offset[0] > next ? "missing" : "there twice"));
      next += part->extent[0];
    }
    if (next != of_one[0]->shape[0])
      throw std::runtime_error(fmt::format("row {} of tensor '{}' is missing", next, name));
  }
}

}  // namespace

std::optional<Monitor> Manifest::monitor() const {
  const Json json = Json::parse(facts, nullptr, false);
  if (!json.is_object() || !json.contains("monitor")) return {};
  const Json& stored = json["monitor"];
  if (stored.is_number()) return Monitor{"", stored.get<double>()};  // by older builds
  if (!stored.is_object()) return {};
  const auto name = stored.find("name"), value = stored.find("value");
  if (name == stored.end() || !name->is_string() || value == stored.end() || !value->is_number())
    return {};
  return Monitor{name->get<std::string>(), value->get<double>()};
}

std::string to_text(const Manifest& manifest) {
  Json facts = Json::parse(manifest.facts.empty() ? "{}" : manifest.facts, nullptr, false);
  if (!facts.is_object())
    throw Error(Code::kInternal, "the facts of a checkpoint are no JSON object");
  std::vector<Json> files, slices;
  for (const auto& file : manifest.files) files.push_back(to_json(file));
  for (const auto& slice : manifest.slices) slices.push_back(to_json(slice));
  std::string text = fmt::format(
      "{}{}\",\n\"format\": {},\n\"step\": {},\n\"samples\": {},\n\"facts\": {},\n"
      "\"files\": [{}],\n\"slices\": [{}]}}\n",
      kOpening, std::string(kDigits, '0'), kFormat, manifest.step, manifest.samples, facts.dump(),
      lines(files), lines(slices));
  return text.replace(kOpening.size(), kDigits, sha256(text));
}

Manifest parse_manifest(const std::string& text, const std::string& path, bool all_rows) {
  auto refuse = [&](const std::string& why, const std::string& hint = "") -> Error {
    return Error(Code::kCheckpoint, why, path, hint);
  };
  if (text.size() < kOpening.size() + kDigits || text.compare(0, kOpening.size(), kOpening) != 0)
    throw refuse("damaged: it does not begin like a manifest");
  if (digest_of(text) != text.substr(kOpening.size(), kDigits))
    throw refuse("damaged: its SHA-256 does not match its text");
  try {
    Json json = Json::parse(text);
    if (int64_t format = whole(json, "format"); format != kFormat)
      throw refuse(fmt::format("has format {}, and this build reads {}", format, kFormat),
                   "use the release of Lehr that wrote it, or a newer one");
    Manifest manifest;
    manifest.step = whole(json, "step");
    manifest.samples = whole(json, "samples");
    if (!json.at("facts").is_object()) throw refuse("its facts are no JSON object");
    manifest.facts = json["facts"].dump();
    std::set<std::string> names;
    for (const auto& file : json.at("files")) {
      manifest.files.push_back(file_from(file));
      if (!names.insert(manifest.files.back().name).second)
        throw refuse("names the file " + manifest.files.back().name + " twice");
    }
    std::set<std::pair<std::string, std::string>> tensors;
    for (const auto& slice : json.at("slices")) {
      manifest.slices.push_back(slice_from(slice));
      const auto& added = manifest.slices.back();
      if (!names.count(added.file))
        throw refuse("puts a tensor into an unnamed file " + added.file);
      if (!tensors.insert({added.file, added.name}).second)
        throw refuse("names the tensor '" + added.name + "' twice");
    }
    std::map<std::string, std::vector<SliceRecord>> by_shard;
    for (const auto& file : manifest.files)
      for (const auto& slice : manifest.slices)
        if (slice.file == file.name) by_shard[file.shard].push_back(slice);
    for (const auto& [shard, slices] : by_shard)
      if (all_rows) require_all_rows(slices);
    return manifest;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {  // of the JSON library, or a field above
    throw refuse(std::string("is no manifest: ") + e.what());
  }
}

}  // namespace lehr::checkpoint
