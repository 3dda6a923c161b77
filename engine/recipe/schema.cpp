// The JSON Schema (draft 2020-12) of recipe files as written, for editors: nothing is required,
// since a file may extend another, and any value may be a text with a reference in it.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/recipe/recipe.h"
#include "engine/recipe/scalars.h"

namespace lehr::recipe {
namespace {

using Json = nlohmann::ordered_json;

Json json_value(const Value& value) {
  return std::visit(
      [](const auto& v) -> Json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return nullptr;
        } else if constexpr (std::is_same_v<T, Duration>) {
          return to_string(v);
        } else if constexpr (std::is_same_v<T, DurationList>) {
          Json list = Json::array();
          for (const auto& item : v) list.push_back(to_string(item));
          return list;
        } else if constexpr (std::is_same_v<T, FloatMap>) {
          Json map = Json::object();
          for (const auto& [key, number] : v) map[key] = number;
          return map;
        } else if constexpr (std::is_same_v<T, double>) {
          return std::isfinite(v) ? Json(v) : Json(value_text(v));  // JSON has no infinity
        } else {
          return v;
        }
      },
      value);
}

Json numbers(const char* type, const Field& field) {
  Json schema = {{"type", type}};
  if (field.minimum && std::isfinite(*field.minimum)) {
    schema[field.exclusive_minimum ? "exclusiveMinimum" : "minimum"] = *field.minimum;
  }
  if (field.maximum && std::isfinite(*field.maximum)) schema["maximum"] = *field.maximum;
  return schema;
}

// plain scalars that YAML readers type are text to a text field: `name: 2024`
Json texts(const Field& field) {
  Json any = {{"type", {"string", "number", "boolean"}}};
  if (field.name_rule != NameRule::kNone) {
    const std::string part = R"([^./\-\u0000-\u001f\u007f][^/\u0000-\u001f\u007f]*)";
    const std::string more = field.name_rule == NameRule::kNested ? "(/" + part + ")*" : "";
    any["pattern"] =
        "^(" + part + more + ")" + (field.default_value == Value(std::string()) ? "?" : "") + "$";
  }
  if (field.choice_list.empty()) return any;
  Json choices = field.choice_list;
  for (const auto& choice : field.choice_list) {
    if (choice == "true" || choice == "false") choices.push_back(choice == "true");
    bool digits = !choice.empty() && choice.find_first_not_of("0123456789") == std::string::npos;
    if (digits && choice.size() < 18) choices.push_back(std::stoll(choice));
  }
  return {{"enum", choices}};
}

// in the units that the field takes
Json durations(const Field& field) {
  static const char* words[] = {"(steps?)?", "ep|epochs?", "s|sec|min|h|d", "samples",
                                "tok|tokens"};
  std::string units;
  Json any = Json::array();
  for (auto unit : field.unit_list) {
    units += (units.empty() ? "" : "|") + std::string(words[static_cast<int>(unit)]);
    if (unit == Duration::Unit::kSteps) any.push_back({{"type", "number"}, {"minimum", 0}});
  }
  any.push_back({{"type", "string"}, {"pattern", fmt::format("^[0-9.][0-9.eE+-]* *({})$", units)}});
  return {{"anyOf", any}};
}

Json or_reference(Json schema) {
  return {{"anyOf", Json::array({std::move(schema), {{"$ref", "#/$defs/reference"}}})}};
}

Json list_of(Json item) { return {{"type", "array"}, {"items", or_reference(std::move(item))}}; }

Json value_schema(const Field& field) {
  switch (field.type) {
    case FieldType::kBool:
      return {{"type", "boolean"}};
    case FieldType::kInt:
      return numbers("integer", field);
    case FieldType::kFloat:
      return numbers("number", field);
    case FieldType::kDuration:
      return durations(field);
    case FieldType::kDurationList:
      return list_of(durations(field));
    case FieldType::kIntList:
      return list_of(numbers("integer", field));
    case FieldType::kFloatList:
      return list_of(numbers("number", field));
    case FieldType::kStringList:
    case FieldType::kPathList:
      return list_of(texts(field));
    case FieldType::kFloatMap:
      return {{"type", "object"}, {"additionalProperties", or_reference(numbers("number", field))}};
    default:
      return texts(field);
  }
}

Json field_schema(const Field& field) {
  Json any = Json::array({value_schema(field)});
  if (field.nullable) any.push_back({{"type", "null"}});
  any.push_back({{"$ref", "#/$defs/reference"}});
  std::string text = field.text;
  if (is_duration(field.type)) text += " In " + units_text(field, " or ") + ".";
  if (!field.unit_name.empty()) text += " Unit: " + field.unit_name + ".";
  if (!field.when_key.empty()) {
    std::string values;
    for (const auto& value : field.when_values) values += (values.empty() ? "" : " or ") + value;
    text += " Only with " + field.when_key + " " + values + ".";
  }
  Json schema = {{"description", text}};
  if (!field.is_required) schema["default"] = json_value(field.default_value);
  schema["anyOf"] = any;
  return schema;
}

Json group(const std::string& text) {
  Json schema;
  if (!text.empty()) schema["description"] = text;
  schema["type"] = {"object", "null"};
  schema["additionalProperties"] = false;
  schema["properties"] = Json::object();
  return schema;
}

// Puts a field under its (dotted) name; one declared several times becomes a choice of all.
void insert(Json& parent, const std::string& dotted, const Field& field) {
  Json& properties = parent["properties"];
  size_t dot = dotted.find('.');
  std::string head = dotted.substr(0, dot);
  if (dot != std::string::npos) {
    if (!properties.contains(head)) properties[head] = group("");
    insert(properties[head], dotted.substr(dot + 1), field);
    return;
  }
  Json schema = field_schema(field);
  if (!properties.contains(head)) {
    properties[head] = schema;
    return;
  }
  Json& old = properties[head];
  bool is_choice = !old.contains("default") && old["anyOf"].front().contains("description");
  if (!is_choice) {
    Json first = old;
    old = {{"description", first["description"]}, {"anyOf", Json::array({first})}};
  }
  old["anyOf"].push_back(schema);
  old["description"] = old["description"].get<std::string>() + " | " + field.text;
}

}  // namespace

std::string json_schema(const std::vector<Section>& sections) {
  Json schema = {
      {"$schema", "https://json-schema.org/draft/2020-12/schema"},
      {"title", "Lehr recipe"},
      {"type", "object"},
      {"additionalProperties", false},
      {"$defs", {{"reference", {{"type", "string"}, {"pattern", "\\$\\{"}}}}},
      {"properties",
       {{"extends",
         {{"type", "string"},
          {"description", "A recipe in the same folder or below it, to inherit from."}}}}}};
  for (const auto& section : merge(sections)) {
    Json object = group(section.text);
    for (const auto& field : section.fields) insert(object, field.name, field);
    schema["properties"][section.name] = object;
  }
  return schema.dump(2) + "\n";
}

}  // namespace lehr::recipe
