#include "engine/recipe/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "engine/recipe/names.h"
#include "engine/recipe/paths.h"
#include "engine/recipe/references.h"
#include "engine/recipe/text.h"

namespace lehr::recipe {
namespace {

using State = Slot::State;

constexpr const char* kNewer = "a newer release of Lehr wrote this: read it with that one";

class Checker {
 public:
  Checker(const std::vector<Section>& sections, const Layers& layers, Mistakes& mistakes)
      : sections_(sections), layers_(layers), mistakes_(mistakes) {
    for (const auto& section : sections) {
      for (const auto& field : section.fields) {
        std::string key = section.name + "." + field.name;
        auto [found, is_new] = slots_.index.emplace(key, slots_.list.size());
        if (is_new) {
          Slot slot;
          slot.section = section.name;
          slot.key = key;
          slots_.list.push_back(std::move(slot));
        }
        slots_.list[found->second].variants.push_back(&field);
      }
    }
  }

  Slots run() {
    for (const auto& entry : layers_.root->entries) section(entry);
    for (auto& slot : slots_.list) resolve(slot);
    return std::move(slots_);
  }

 private:
  // only a recipe with mistakes needs them
  const Names& names() {
    if (!names_) names_.emplace(sections_);
    return *names_;
  }

  void section(const Entry& entry) {
    auto known = std::find_if(sections_.begin(), sections_.end(),
                              [&](const Section& s) { return s.name == entry.key; });
    if (known == sections_.end()) {
      bool is_section = entry.value->kind == Node::Kind::kMap || entry.value->is_nothing();
      std::string hint;
      if (is_stored(entry))
        hint = kNewer;
      else if (!mistakes_.full())
        hint = names().top_level_hint(entry.key);
      mistakes_.add(entry.mark, shown(entry.key), is_section ? "unknown section" : "unknown key",
                    hint);
      return;
    }
    slots_.section_marks[entry.key] = entry.mark;
    keys(entry.key, "", entry);
  }

  // Sorts the keys of a section, or of a mapping `prefix` in it, into their slots.
  void keys(const std::string& section, const std::string& prefix, const Entry& parent) {
    const Node& node = *parent.value;
    if (node.kind != Node::Kind::kMap) {
      if (node.is_nothing()) return;
      std::string dotted = prefix.substr(0, prefix.size() - !prefix.empty());
      std::string name = section + "." + (prefix.empty() ? "" : dotted + ".") + "name";
      bool meant_name = node.kind == Node::Kind::kScalar && slots_.index.contains(name);
      mistakes_.add(node.mark, prefix.empty() ? section : section + "." + dotted,
                    "must be a mapping of keys",
                    meant_name ? fmt::format("did you mean {}: {}?", name, shown(node.text)) : "");
      return;
    }
    for (const auto& entry : node.entries) {
      std::string dotted = prefix + entry.key;
      auto found = slots_.index.find(section + "." + dotted);
      bool is_dotted = entry.key.find('.') != std::string::npos;
      bool is_field = found != slots_.index.end();
      bool is_group = is_prefix(section + "." + dotted + ".");
      if (is_field && !is_dotted) {
        Slot& slot = slots_.list[found->second];
        slot.mark = entry.mark;
        slot.written = entry.value;
      } else if (is_group && !is_dotted) {
        keys(section, dotted + ".", entry);
      } else {
        unknown(section, dotted, entry, is_field || is_group);
      }
    }
  }

  // Lehr wrote it, and no user
  bool is_stored(const Entry& entry) const {
    return layers_.stored && entry.mark.source == layers_.main;
  }

  void unknown(const std::string& section, const std::string& dotted, const Entry& entry,
               bool only_dotted) {
    std::string hint;
    if (is_stored(entry)) {
      hint = kNewer;
    } else if (const std::string since = names().gone(section, dotted); !since.empty()) {
      mistakes_.add(entry.mark, section + "." + shown(dotted), "is gone " + since, "remove it");
      return;
    } else if (only_dotted) {
      size_t dot = entry.key.find('.');
      hint = fmt::format("nest it as \"{}: {{{}: ...}}\"", entry.key.substr(0, dot),
                         entry.key.substr(dot + 1));
    } else if (!mistakes_.full()) {
      hint = names().hint(section, dotted);
    }
    mistakes_.add(entry.mark, section + "." + shown(dotted), "unknown key", hint);
  }

  bool is_prefix(const std::string& prefix) const {
    auto next = slots_.index.lower_bound(prefix);
    return next != slots_.index.end() && next->first.starts_with(prefix);
  }

  // Brings a slot (and what it depends on) from kNew to one of the last three states.
  void resolve(Slot& slot) {
    if (slot.state != State::kNew) return;
    slot.state = State::kVisiting;
    chain_.push_back(slot.key);
    State state = choose(slot);
    if (state == State::kActive && !fill(slot)) state = State::kBad;
    slot.state = state;
    chain_.pop_back();
  }

  // Finds the variant whose condition holds.
  State choose(Slot& slot) {
    std::string belongs, otherwise, elsewhere;
    for (const Field* field : slot.variants) {
      if (field->when_key.empty()) {
        slot.field = field;
        return State::kActive;
      }
      Slot& on = slots_.list[slots_.index.at(slot.section + "." + field->when_key)];
      resolve(on);
      if (on.state == State::kVisiting) {
        mistakes_.add(on.mark, on.key, "refers to itself: " + circle(on.key));
        return State::kBad;
      }
      // its own mistake is told already: nothing can be said about this one
      if (on.state == State::kBad) return State::kBad;
      if (on.state == State::kActive) {
        std::string value = value_text(on.value);
        const auto& values = field->when_values;
        if (std::find(values.begin(), values.end(), value) != values.end()) {
          slot.field = field;
          return State::kActive;
        }
        otherwise = ", not " + shown(value);
        // an override or a base may have changed it behind this file's back
        if (on.written && on.mark.source != slot.mark.source) {
          elsewhere = fmt::format(" ({} comes from {})", on.key, on.mark.text());
        }
      }
      for (const auto& value : field->when_values) {
        belongs += (belongs.empty() ? on.key + " " : " or ") + value;
      }
    }
    slot.belongs = "belongs to " + belongs + otherwise;
    if (slot.written) mistakes_.add(slot.mark, slot.key, slot.belongs, "remove it" + elsewhere);
    return State::kInactive;
  }

  // Gives an active slot its value.
  bool fill(Slot& slot) {
    const Field& field = *slot.field;
    if (!slot.written) {
      slot.value = slot.printed = field.default_value;
      if (!field.is_required || !layers_.complete) return true;
      auto section = slots_.section_marks.find(slot.section);
      mistakes_.add(section == slots_.section_marks.end() ? Mark{layers_.main} : section->second,
                    slot.key, "is required and not set", first_lower(field.text));
      return false;
    }
    slot.expanded = expand(slot, slot.written, 0);
    if (!slot.expanded) return false;
    const bool stored = layers_.stored && slot.mark.source == layers_.main;
    auto value = read_value(field, slot.key, *slot.expanded, mistakes_, stored);
    if (!value) return false;
    slot.value = slot.printed = std::move(*value);
    // a path equal to its default means what the default means, wherever it is written
    if (is_path(field.type) && slot.value != field.default_value) {
      place_paths(*slot.expanded, layers_.main->folder, field.default_value, slot.value,
                  slot.printed);
    }
    return true;
  }

  static std::string first_lower(std::string text) {
    if (text.size() > 1 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a') text[0] |= 0x20;
    if (text.ends_with('.')) text.pop_back();
    return text;
  }

  // `node` with every reference in it put in, or nullptr after a mistake.
  NodePtr expand(const Slot& slot, const NodePtr& node, int depth) {
    if (node->kind == Node::Kind::kScalar) return expand_scalar(slot, node, depth > 0);
    if (depth > 1) return node;  // no field nests deeper: its type will not fit
    auto copy = std::make_shared<Node>(*node);
    bool good = true;
    auto child = [&](NodePtr& value) {
      value = expand(slot, value, depth + 1);
      good &= value != nullptr;
    };
    for (auto& item : copy->items) child(item);
    for (auto& entry : copy->entries) child(entry.value);
    return good ? copy : nullptr;
  }

  NodePtr expand_scalar(const Slot& slot, const NodePtr& node, bool is_item) {
    if (node->text.find("${") == std::string::npos) return node;
    std::string problem;
    auto pieces = split_references(node->text, problem);
    if (!problem.empty()) {
      mistakes_.add(node->mark, slot.key, problem, "write ${section.key}, or $${ for a plain ${");
      return nullptr;
    }
    auto copy = std::make_shared<Node>(*node);
    copy->text.clear();
    for (const auto& piece : pieces) {
      if (!piece.is_reference) {
        copy->text += piece.text;
        continue;
      }
      NodePtr target = refer(slot, *node, piece.text);
      if (!target) return nullptr;
      if (expanded_bytes_ > kMaxBytes) return nullptr;  // told before
      if ((expanded_bytes_ += bytes(*target)) > kMaxBytes) {
        mistakes_.add(node->mark, slot.key, "references grow beyond 1 MiB");
        return nullptr;
      }
      bool is_whole = pieces.size() == 1;
      if (target->kind != Node::Kind::kScalar && (!is_whole || is_item)) {
        mistakes_.add(node->mark, slot.key,
                      fmt::format("'${{{}}}' is not a single value", piece.text),
                      is_item ? "" : "let it stand alone");
        return nullptr;
      }
      if (is_whole) {
        auto whole = std::make_shared<Node>(*target);
        whole->mark = node->mark;
        return whole;
      }
      // a path that begins with another one starts where that one starts
      if (copy->text.empty() && is_path(slots_.find(piece.text)->field->type)) {
        copy->base = target->base;
      }
      copy->text += target->text;
      // put together, it is text to a text field and a plain scalar to any other
      copy->quoted = is_text(slot.field->type);
    }
    return copy;
  }

  static size_t bytes(const Node& node) {
    size_t sum = node.text.size();
    for (const auto& item : node.items) sum += item->text.size();
    for (const auto& entry : node.entries) sum += entry.key.size();
    return sum;
  }

  // "a -> b -> a" for an `a` that is being resolved
  std::string circle(const std::string& key) const {
    std::string text;
    for (auto at = std::find(chain_.begin(), chain_.end(), key); at != chain_.end(); ++at) {
      text += *at + " -> ";
    }
    return text + key;
  }

  // What `${key}` stands for, or nullptr (a mistake was told here or for that key).
  NodePtr refer(const Slot& slot, const Node& node, const std::string& key) {
    auto fail = [&](const std::string& what, const std::string& hint = "") {
      mistakes_.add(node.mark, slot.key, fmt::format("'${{{}}}' {}", key, what), hint);
      return nullptr;
    };
    auto found = slots_.index.find(key);
    if (found == slots_.index.end()) {
      size_t dot = key.find('.');
      return fail("refers to an unknown key",
                  mistakes_.full() ? "" : names().hint(key.substr(0, dot), key.substr(dot + 1)));
    }
    Slot& target = slots_.list[found->second];
    if (target.state == State::kVisiting) return fail("refers to itself: " + circle(key));
    resolve(target);
    if (target.state == State::kBad) return nullptr;
    if (target.state == State::kInactive) return fail(target.belongs);
    if (target.expanded) return target.expanded;
    auto value = std::make_shared<Node>(*to_node(target.value));
    value->base = working_directory();
    return value;
  }

  const std::vector<Section>& sections_;
  const Layers& layers_;
  Mistakes& mistakes_;
  std::optional<Names> names_;
  Slots slots_;
  std::vector<std::string> chain_;  // keys being resolved, outermost first
  size_t expanded_bytes_ = 0;
};

}  // namespace

const Slot* Slots::find(const std::string& key) const {
  auto found = index.find(key);
  return found == index.end() ? nullptr : &list[found->second];
}

bool Slots::holds(const std::string& section, const Field& field) const {
  if (field.when_key.empty()) return true;
  const Slot* on = find(section + "." + field.when_key);
  if (!on || on->state != State::kActive) return false;
  const auto& values = field.when_values;
  return std::find(values.begin(), values.end(), value_text(on->value)) != values.end();
}

Slots check(const std::vector<Section>& sections, const Layers& layers, Mistakes& mistakes) {
  return Checker(sections, layers, mistakes).run();
}

}  // namespace lehr::recipe
