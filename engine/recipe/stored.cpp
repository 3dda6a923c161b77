#include "engine/recipe/stored.h"

#include <algorithm>

namespace lehr::recipe {
namespace {

// What stands under "section.name" in `node`, or nullptr.
NodePtr find(const Node& node, const std::string& dotted) {
  const std::string head = dotted.substr(0, dotted.find('.'));
  for (const auto& entry : node.entries) {
    if (entry.key != head) continue;
    return head == dotted ? entry.value : find(*entry.value, dotted.substr(head.size() + 1));
  }
  return nullptr;
}

// `node` without what stands under `dotted`.
NodePtr without(const Node& node, const std::string& dotted) {
  auto copy = std::make_shared<Node>(node);
  const std::string head = dotted.substr(0, dotted.find('.'));
  if (head == dotted) {
    std::erase_if(copy->entries, [&](const Entry& entry) { return entry.key == head; });
  } else {
    for (auto& entry : copy->entries)
      if (entry.key == head) entry.value = without(*entry.value, dotted.substr(head.size() + 1));
    // a mapping that held nothing else would be unknown
    std::erase_if(copy->entries, [&](const Entry& entry) {
      return entry.key == head && entry.value->kind == Node::Kind::kMap &&
             entry.value->entries.empty();
    });
  }
  return copy;
}

// `value` alone, under `dotted`.
NodePtr under(const std::string& dotted, const NodePtr& value) {
  const size_t dot = dotted.find('.');
  auto map = std::make_shared<Node>();
  map->kind = Node::Kind::kMap;
  map->mark = value->mark, map->base = value->base;
  const NodePtr child = dot == std::string::npos ? value : under(dotted.substr(dot + 1), value);
  map->entries.push_back({dotted.substr(0, dot), value->mark, child});
  return map;
}

}  // namespace

NodePtr adapt_stored(const NodePtr& root, const std::vector<Section>& sections, StringList& gone) {
  NodePtr tree = root;
  for (const auto& section : sections) {
    for (const auto& field : section.fields) {
      for (const auto& old : field.was_list) {
        const NodePtr value = find(*tree, old);
        if (!value) continue;
        const std::string key = section.name + "." + field.name;
        const NodePtr rest = without(*tree, old);
        if (!find(*rest, key)) tree = merge_trees(rest, under(key, value));
      }
    }
    for (const auto& [name, since] : section.gone_list) {
      const std::string key = section.name + "." + name;
      if (!find(*tree, key)) continue;
      tree = without(*tree, key);
      gone.push_back(key + " (" + since + ")");
    }
  }
  return tree;
}

}  // namespace lehr::recipe
