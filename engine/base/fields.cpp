#include "engine/base/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

namespace lehr {

FieldType detail::field_type(const Value& sample) {
  switch (sample.index()) {
    case 1:
      return FieldType::kBool;
    case 2:
      return FieldType::kInt;
    case 3:
      return FieldType::kFloat;
    case 4:
      return FieldType::kString;
    case 5:
      return FieldType::kDuration;
    case 6:
      return FieldType::kIntList;
    case 7:
      return FieldType::kFloatList;
    case 8:
      return FieldType::kStringList;
    case 9:
      return FieldType::kFloatMap;
    default:
      return FieldType::kDurationList;
  }
}

std::string to_string(const Duration& d) {
  static const char* units[] = {"", "ep", "s", "samples", "tok"};
  return fmt::format("{}{}", d.value, units[static_cast<int>(d.unit)]);
}

std::optional<Duration> parse_duration(const std::string& text) {
  using Unit = Duration::Unit;
  static const std::map<std::string, std::pair<Unit, double>> units = {
      {"", {Unit::kSteps, 1}},        {"step", {Unit::kSteps, 1}},
      {"steps", {Unit::kSteps, 1}},   {"ep", {Unit::kEpochs, 1}},
      {"epoch", {Unit::kEpochs, 1}},  {"epochs", {Unit::kEpochs, 1}},
      {"s", {Unit::kSeconds, 1}},     {"sec", {Unit::kSeconds, 1}},
      {"min", {Unit::kSeconds, 60}},  {"h", {Unit::kSeconds, 3600}},
      {"d", {Unit::kSeconds, 86400}}, {"samples", {Unit::kSamples, 1}},
      {"tok", {Unit::kTokens, 1}},    {"tokens", {Unit::kTokens, 1}}};
  if (text.empty() || !(text[0] == '.' || (text[0] >= '0' && text[0] <= '9'))) return std::nullopt;
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  std::string rest(end);
  while (!rest.empty() && rest.front() == ' ') rest.erase(rest.begin());
  auto unit = units.find(rest);
  if (unit == units.end()) return std::nullopt;
  value *= unit->second.second;
  if (!std::isfinite(value)) return std::nullopt;
  // part of a step, sample or token is no length
  if (unit->second.first != Unit::kEpochs && unit->second.first != Unit::kSeconds &&
      value != std::floor(value))
    return std::nullopt;
  return Duration{value, unit->second.first};
}

std::string name_problem(const std::string& text, NameRule rule) {
  if (rule == NameRule::kNone) return "";
  if (text.size() > 200) return "is longer than 200 bytes";
  for (unsigned char c : text)
    if (c < 0x20 || c == 0x7F) return "holds a control character";
  for (size_t at = 0; at <= text.size();) {
    const size_t slash = std::min(text.find('/', at), text.size());
    const std::string part = text.substr(at, slash - at);
    if (rule == NameRule::kPlain && slash < text.size()) return "holds a slash";
    if (part.empty()) return text.empty() ? "is empty" : "has nothing beside a slash";
    if (part[0] == '.' || part[0] == '-') return fmt::format("begins a name with `{}`", part[0]);
    at = slash + 1;
  }
  return "";
}

void FixedFields::fill(const Section& section, void* object) const {
  for (const auto& field : section.fields)
    for (const auto& [key, value] : values_)
      if (key == section.name + "." + field.name) field.store(object, value);
}

}  // namespace lehr
