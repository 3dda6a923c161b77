// What rooms declare must make sense by itself: a contradiction is a fault of ours, told when the
// first recipe is read and not by the one that meets it.
#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/recipe/check.h"
#include "engine/recipe/recipe.h"

namespace lehr::recipe {
namespace {

[[noreturn]] void fault(const std::string& key, const std::string& what) {
  throw Error(Code::kInternal, fmt::format("declaration of {}: {}", key, what));
}

void check_field(const Section& section, const Field& field) {
  std::string key = section.name + "." + field.name;
  bool starts_or_ends = field.name.starts_with('.') || field.name.ends_with('.');
  if (field.name.empty() || starts_or_ends) fault(key, "has no proper name");
  if (!field.when_key.empty()) {
    if (field.when_key == field.name) fault(key, "is its own condition");
    auto is_key = [&](const Field& other) { return other.name == field.when_key; };
    if (std::none_of(section.fields.begin(), section.fields.end(), is_key)) {
      fault(key, fmt::format("its condition {} is not declared in the section", field.when_key));
    }
  }
  if (is_duration(field.type) != !field.unit_list.empty())
    fault(key, "a duration says its units, and only a duration");
  if (field.is_required) return;
  // a default that reads back as something else could not be written into a resolved recipe
  Mistakes mistakes;
  Value absent;
  bool fits = field.nullable && field.default_value == absent;
  if (!fits) {
    auto read = read_value(field, key, *to_node(field.default_value), mistakes);
    fits = read && *read == field.default_value;
  }
  if (!fits) {
    fault(key, fmt::format("its default {} is none of its values",
                           flow_text(*to_node(field.default_value))));
  }
}

void check_pair(const Section& section, const Field& a, const Field& b) {
  if (b.name.size() > a.name.size() && b.name[a.name.size()] == '.' && b.name.starts_with(a.name)) {
    fault(section.name + "." + a.name, fmt::format("{} lies below it", b.name));
  }
  if (a.name != b.name || (a.type == b.type && a.default_value == b.default_value)) return;
  auto shared = [&](const std::string& value) {
    return std::find(b.when_values.begin(), b.when_values.end(), value) != b.when_values.end();
  };
  bool both =
      a.when_key.empty() || b.when_key.empty() ||
      (a.when_key == b.when_key && std::any_of(a.when_values.begin(), a.when_values.end(), shared));
  if (both) fault(section.name + "." + a.name, "is declared twice with another type or default");
}

}  // namespace

std::vector<Section> merge(const std::vector<Section>& sections) {
  std::vector<Section> merged;
  for (const auto& section : sections) {
    auto same = std::find_if(merged.begin(), merged.end(),
                             [&](const Section& s) { return s.name == section.name; });
    if (same == merged.end()) {
      merged.push_back(section);
      continue;
    }
    if (same->text.empty()) same->text = section.text;
    same->fields.insert(same->fields.end(), section.fields.begin(), section.fields.end());
    same->gone_list.insert(same->gone_list.end(), section.gone_list.begin(),
                           section.gone_list.end());
  }
  return merged;
}

void check_declarations(const std::vector<Section>& sections) {
  for (const auto& section : sections) {
    if (section.name == "extends") fault(section.name, "the name is taken");
    for (const auto& [name, since] : section.gone_list)
      for (const auto& field : section.fields)
        if (field.name == name) fault(section.name + "." + name, "is gone and declared");
    for (const auto& field : section.fields) check_field(section, field);
    for (const auto& a : section.fields) {
      for (const auto& b : section.fields) {
        if (&a != &b) check_pair(section, a, b);
      }
    }
  }
}

}  // namespace lehr::recipe
