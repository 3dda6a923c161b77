#include "engine/recipe/print.h"

#include <fmt/format.h>

#include <algorithm>

namespace lehr::recipe {
namespace {

// Dotted names as the nested mappings that they stand for, in the order of their first member.
struct Branch {
  std::string name;
  const Slot* slot = nullptr;
  std::vector<Branch> children;
};

void insert(Branch& parent, const std::string& dotted, const Slot& slot) {
  size_t dot = dotted.find('.');
  std::string head = dotted.substr(0, dot);
  auto child = std::find_if(parent.children.begin(), parent.children.end(),
                            [&](const Branch& b) { return b.name == head; });
  if (child == parent.children.end()) {
    child = parent.children.insert(child, Branch{head, nullptr, {}});
  }
  if (dot == std::string::npos) {
    child->slot = &slot;
  } else {
    insert(*child, dotted.substr(dot + 1), slot);
  }
}

void write(const Branch& branch, int indent, std::string& out, int& values) {
  values += 2;
  out += fmt::format("{:{}}{}:", "", indent, branch.name);
  if (!branch.slot) {
    out += "\n";
    for (const auto& child : branch.children) write(child, indent + 2, out, values);
    return;
  }
  NodePtr node = to_node(branch.slot->printed);
  values += node->nodes - 1;
  out += " " + flow_text(*node);
  const auto& unit = branch.slot->field->unit_name;
  if (!unit.empty()) out += "  # " + unit;
  out += "\n";
}

}  // namespace

std::string print(const std::vector<Section>& sections, const Slots& slots, int& values) {
  std::string out;
  values = 1;
  for (const auto& section : sections) {
    Branch root{section.name, nullptr, {}};
    for (const auto& slot : slots.list) {
      if (slot.section != section.name || slot.state != Slot::State::kActive) continue;
      insert(root, slot.key.substr(section.name.size() + 1), slot);
    }
    if (root.children.empty()) continue;
    if (!out.empty()) out += "\n";
    write(root, 0, out, values);
  }
  if (out.empty()) out = "{}\n";
  return out;
}

}  // namespace lehr::recipe
