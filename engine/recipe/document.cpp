// recipes/REFERENCE.md from the declarations: one table for each section.
#include <fmt/format.h>

#include "engine/recipe/recipe.h"
#include "engine/recipe/scalars.h"

namespace lehr::recipe {
namespace {

// safe inside a cell of a markdown table
std::string cell(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string code(const std::string& text) { return "`" + cell(text) + "`"; }

std::string type_cell(const Field& field) {
  std::string text = type_text(field.type);
  if (field.nullable) text += ", or `null`";
  return text;
}

std::string default_cell(const Field& field) {
  return field.is_required ? "**required**" : code(flow_text(*to_node(field.default_value)));
}

std::string values_cell(const Field& field) {
  std::string text;
  for (const auto& choice : field.choice_list) {
    text += (text.empty() ? "" : ", ") + code(choice.empty() ? "\"\"" : choice);
  }
  std::string limits = limits_text(field);
  if (limits.empty()) limits = name_text(field.name_rule);
  if (!limits.empty()) text += (text.empty() ? "" : "; ") + limits;
  return text;
}

std::string unit_cell(const Field& field) {
  return is_duration(field.type) ? units_text(field) : cell(field.unit_name);
}

std::string sentence_cell(const Field& field) {
  std::string text = cell(field.text);
  if (field.when_key.empty()) return text;
  std::string values;
  for (const auto& value : field.when_values) {
    values += (values.empty() ? "" : " or ") + code(value);
  }
  return fmt::format("{} Only with {} {}.", text, code(field.when_key), values);
}

}  // namespace

std::string reference(const std::vector<Section>& sections) {
  std::string out =
      "# Every field of a recipe\n\n"
      "Written from the declarations in the code; do not edit it.\n\n"
      "A recipe is YAML: sections that hold keys. `extends: base.yaml` inherits from a file in "
      "the\n"
      "same folder or below it, `${section.key}` stands for another field (`$${` for a plain "
      "`${`),\n"
      "`--set section.key=value` overrides. A dotted name is a nested mapping. A duration is a\n"
      "number of steps (`500`), epochs (`2ep`), samples (`10000samples`) or tokens (`1e9tok`), or "
      "a\n"
      "time (`30s`, `10min`, `2h`, `1d`); *unit* says which of them a field takes. A relative "
      "path\n"
      "starts at the folder of the file in which it is written (on the command line and in a "
      "default:\n"
      "at the working directory). *Resume*: `free` marks a field that may change between a save "
      "and\n"
      "its resume without breaking exactness.\n";
  for (const auto& section : merge(sections)) {
    out += fmt::format("\n## {}\n\n", section.name);
    if (!section.text.empty()) out += section.text + "\n\n";
    out += "| field | type | default | values | unit | what it does | resume |\n";
    out += "|---|---|---|---|---|---|---|\n";
    for (const auto& field : section.fields) {
      out += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", code(field.name),
                         type_cell(field), default_cell(field), values_cell(field),
                         unit_cell(field), sentence_cell(field), field.exact ? "" : "free");
    }
  }
  return out;
}

}  // namespace lehr::recipe
