// The tree of a recipe against the declared fields: every key known, every value of its type, every
// condition kept. Collects all mistakes; what is left is one slot per declared key.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/recipe/layers.h"
#include "engine/recipe/scalars.h"

namespace lehr::recipe {

// One "section.name", which may be declared several times under different conditions.
struct Slot {
  enum class State { kNew, kVisiting, kBad, kInactive, kActive };
  State state = State::kNew;
  std::string section, key;
  std::vector<const Field*> variants;
  const Field* field = nullptr;  // the active variant
  std::string belongs;           // why it is inactive: "belongs to model.name mlp, not cnn"
  Mark mark;                     // of the key where it is written
  NodePtr written, expanded;     // as written; with references put in
  Value value;                   // paths: usable from the working directory
  Value printed;                 // paths: relative to the recipe's folder
};

struct Slots {
  std::vector<Slot> list;  // in the order of declaration
  std::map<std::string, size_t> index;
  std::map<std::string, Mark> section_marks;  // of the sections that are written
  const Slot* find(const std::string& key) const;
  // Does the condition of `field` in `section` hold? Only once everything is checked.
  bool holds(const std::string& section, const Field& field) const;
};

// `sections` is merged and outlives the result.
Slots check(const std::vector<Section>& sections, const Layers& layers, Mistakes& mistakes);

// Throws Error{kInternal} when declarations contradict themselves: two types under one condition, a
// default that its own range refuses, a condition on a field that is not there.
void check_declarations(const std::vector<Section>& sections);

}  // namespace lehr::recipe
