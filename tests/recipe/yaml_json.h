// A recipe file as JSON, typed as any YAML 1.2 reader types it (core schema): what an editor hands
// to a JSON Schema validator. Knows nothing of our fields.
#pragma once

#include <nlohmann/json.hpp>
#include <regex>
#include <string>

#include "engine/recipe/tree.h"

namespace lehr::recipe {

inline nlohmann::json scalar_as_json(const Node& node) {
  static const std::regex integer("[-+]?[0-9]+");
  static const std::regex number("[-+]?(\\.[0-9]+|[0-9]+(\\.[0-9]*)?)([eE][-+]?[0-9]+)?");
  const auto& text = node.text;
  if (node.quoted) return text;
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL")
    return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  if (text.size() < 19 && std::regex_match(text, integer)) return std::stoll(text);
  if (text.size() < 200 && std::regex_match(text, number))
    return std::strtod(text.c_str(), nullptr);
  if (text == ".inf" || text == "+.inf") return 1e308;  // JSON has no infinity
  return text;
}

inline nlohmann::json node_as_json(const Node& node) {
  if (node.kind == Node::Kind::kList) {
    auto list = nlohmann::json::array();
    for (const auto& item : node.items) list.push_back(node_as_json(*item));
    return list;
  }
  if (node.kind == Node::Kind::kMap) {
    auto map = nlohmann::json::object();
    for (const auto& entry : node.entries) map[entry.key] = node_as_json(*entry.value);
    return map;
  }
  return scalar_as_json(node);
}

inline nlohmann::json yaml_as_json(const std::string& text) {
  Mistakes mistakes;
  NodePtr root = parse_tree(text, std::make_shared<Source>(Source{"yaml"}), mistakes);
  mistakes.throw_if_any();
  return node_as_json(*root);
}

}  // namespace lehr::recipe
