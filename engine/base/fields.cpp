#include "engine/base/fields.h"

#include <fmt/format.h>

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
    default:
      return FieldType::kFloatMap;
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
  if (!std::isfinite(value)) return std::nullopt;
  std::string rest(end);
  while (!rest.empty() && rest.front() == ' ') rest.erase(rest.begin());
  auto unit = units.find(rest);
  if (unit == units.end()) return std::nullopt;
  value *= unit->second.second;
  // part of a step, sample or token is no length
  if (unit->second.first != Unit::kEpochs && unit->second.first != Unit::kSeconds &&
      value != std::floor(value))
    return std::nullopt;
  return Duration{value, unit->second.first};
}

void FixedFields::fill(const Section& section, void* object) const {
  for (const auto& field : section.fields)
    for (const auto& [key, value] : values_)
      if (key == section.name + "." + field.name) field.store(object, value);
}

}  // namespace lehr
