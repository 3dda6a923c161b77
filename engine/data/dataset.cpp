#include "engine/data/dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "engine/data/images.h"
#include "engine/data/order.h"
#include "engine/data/windows.h"

namespace lehr::data {

const char* to_string(Split split) {
  static const char* names[] = {"train", "validation", "test"};
  return names[static_cast<int>(split)];
}

std::shared_ptr<Dataset> open_dataset(const FieldSource& fields) {
  static const std::map<std::string, std::shared_ptr<Dataset> (*)(const FieldSource&)> sources = {
      {"idx", open_arrays}, {"npy", open_arrays}, {"image_folder", open_folder},
      {"csv", open_table},  {"text", open_text},  {"tokens", open_tokens}};
  const std::string name = fields.get<DataFields>().source;
  auto source = sources.find(name);
  if (source == sources.end()) {
    StringList known;
    for (const auto& entry : sources) known.push_back(entry.first);
    throw Error(Code::kRecipe, fmt::format("there is no source '{}'", name), "data.source",
                fmt::format("Sources are {}.", fmt::join(known, ", ")));
  }
  return source->second(fields);
}

HeldOut hold_out(int64_t rows, const std::vector<uint64_t>& ids, double fraction, uint64_t seed,
                 const std::string& field) {
  HeldOut result;
  for (int64_t i = 0; i < rows; ++i)
    (held_out(ids.empty() ? i : ids[i], fraction, seed) ? result.held : result.kept).push_back(i);
  if (fraction > 0 && (result.held.empty() || result.kept.empty()))
    throw Error(Code::kRecipe,
                fmt::format("a fraction of {} of {} samples leaves {} and {}", fraction, rows,
                            result.kept.size(), result.held.size()),
                field,
                "Choose another fraction or data.split_seed, or give the set its own files.");
  return result;
}

void check_bad_samples(int64_t bad, int64_t most, const std::string& what) {
  if (bad > most)
    throw Error(Code::kData,
                fmt::format("{} bad samples in {}, {} may be left out", bad, what, most),
                "data.max_bad_samples",
                "lehr check --all lists them; mend or remove them, or raise the limit.");
}

std::string missing_hint(const std::string& name) {
  if (name.empty()) return "";
  return fmt::format("Run scripts/data {} once: it fetches this set.", name);
}

std::string fingerprint_of(const std::vector<std::string>& hashes) {
  const std::string text = fmt::format("{}", fmt::join(hashes, "\n"));
  return xxh3_128(text.data(), text.size());
}

}  // namespace lehr::data
