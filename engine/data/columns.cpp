#include "engine/data/columns.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/base/error.h"

namespace lehr::data {
namespace {

// Of so many different texts a column of numbers is no code of a few values.
constexpr size_t kFewTexts = 20;
// What share of a column's cells are numbers where the rest are slips, and where it is worth a
// line.
constexpr double kAlmostAll = 0.9, kMost = 0.5;
constexpr size_t kNamed = 3;

struct Profile {
  int64_t numbers = 0, missing = 0, words = 0;
  int64_t commas = 0;           // of the words: numbers but for their commas
  std::set<std::string> texts;  // different cells, up to one more than kFewTexts
  StringList named;             // the first different words, each with its line

  bool is_number() const { return words == 0; }
  double share() const {
    return static_cast<double>(numbers + commas) / static_cast<double>(numbers + words);
  }
  std::string said() const {
    return fmt::format("{} of {} cells are numbers, and {}{} not", numbers, numbers + words,
                       fmt::join(named, ", "),
                       words > static_cast<int64_t>(named.size()) ? " and others are"
                       : words > 1                                ? " are"
                                                                  : " is");
  }
};

// "1,234", "0,5"
bool is_comma_number(std::string_view cell) {
  if (cell.find(',') == cell.npos) return false;
  std::string plain(cell);
  std::erase(plain, ',');
  const auto value = parse_number(plain);
  return value && std::isfinite(*value);
}

std::vector<Profile> profiles(const Bytes& file, char delimiter, const StringList& missing) {
  CsvReader reader(file, delimiter);
  std::vector<Profile> all(reader.names().size());
  std::vector<std::string_view> cells;
  while (reader.next(cells))
    for (size_t i = 0; i < cells.size(); ++i) {
      Profile& p = all[i];
      const auto value = parse_number(cells[i], missing);
      if (value && std::isnan(*value)) {
        ++p.missing;
        continue;
      }
      if (p.texts.size() <= kFewTexts) p.texts.emplace(cells[i]);
      if (value) {
        ++p.numbers;
        continue;
      }
      ++p.words;
      if (is_comma_number(cells[i])) ++p.commas;
      const std::string word = cell_text(cells[i]) + " ";
      if (p.named.size() < kNamed && std::none_of(p.named.begin(), p.named.end(), [&](auto& other) {
            return other.starts_with(word);
          }))
        p.named.push_back(fmt::format("{}(line {})", word, reader.line()));
    }
  return all;
}

void refuse_slips(const std::string& name, const Profile& p, const Bytes& file, bool is_target) {
  if (p.is_number() || p.texts.size() <= kFewTexts || p.share() < kAlmostAll) return;
  throw Error(
      Code::kData, fmt::format("column '{}' would become a category a value: {}", name, p.said()),
      file.path,
      fmt::format("{}, or {}.",
                  p.commas > 0 ? "Write numbers with a point and without thousands separators "
                                 "(1234.5)"
                               : "Correct these cells, name words for a missing value in "
                                 "data.missing_values",
                  is_target ? "say data.task"
                            : "name the inputs in data.number_columns and data.string_columns"));
}

bool holds(const StringList& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

void check_names(const StringList& names, const std::string& path, const TableFields& fields) {
  column_index(names, path, fields.target, "data.target");
  for (const auto& name : fields.ignore_columns)
    column_index(names, path, name, "data.ignore_columns");
  for (const auto* list : {&fields.number_columns, &fields.string_columns})
    if (holds(*list, fields.target))
      throw Error(Code::kRecipe,
                  fmt::format("column '{}' is the target and an input", fields.target),
                  "data.target", "A model would only copy it.");
  for (const auto& name : fields.number_columns)
    if (holds(fields.string_columns, name))
      throw Error(Code::kRecipe,
                  fmt::format("column '{}' is among the numbers and the strings", name),
                  "data.string_columns");
}

}  // namespace

ChosenColumns choose_columns(const Bytes& file, char delimiter, const TableFields& fields) {
  ChosenColumns chosen;
  TableColumns& columns = chosen.columns;
  columns.target = fields.target;
  columns.numbers = fields.number_columns;
  columns.strings = fields.string_columns;
  columns.missing = fields.missing_values;
  const StringList names = CsvReader(file, delimiter).names();
  check_names(names, file.path, fields);

  columns.target_is_class = fields.task == "classification";
  const bool infer = columns.numbers.empty() && columns.strings.empty();
  if (!infer && fields.task != "auto") return chosen;
  const std::vector<Profile> all = profiles(file, delimiter, fields.missing_values);
  for (size_t i = 0; i < names.size(); ++i) {
    const Profile& p = all[i];
    if (names[i] == fields.target) {
      if (fields.task != "auto") continue;
      refuse_slips(names[i], p, file, true);
      columns.target_is_class = !p.is_number();
    } else if (infer && !holds(fields.ignore_columns, names[i])) {
      refuse_slips(names[i], p, file, false);
      if (!p.is_number() && p.share() >= kMost)
        chosen.remarks.push_back(
            fmt::format("column '{}' is taken as categories: {}", names[i], p.said()));
      (p.is_number() ? columns.numbers : columns.strings).push_back(names[i]);
    }
  }
  return chosen;
}

}  // namespace lehr::data
