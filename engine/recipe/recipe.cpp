// The public face: reads the layers, checks them, and keeps what came out for those who ask.
#include "engine/recipe/recipe.h"

#include <fmt/format.h>

#include <filesystem>

#include "engine/base/hash.h"
#include "engine/recipe/check.h"
#include "engine/recipe/layers.h"
#include "engine/recipe/print.h"
#include "engine/recipe/stored.h"
#include "engine/recipe/text.h"

namespace lehr::recipe {

struct Recipe::State {
  std::string path, folder;
  std::vector<Section> sections;  // merged; the slots point into it
  Slots slots;
  std::string resolved, hash;
  StringList left_out;

  static std::shared_ptr<State> make(const std::vector<Section>& sections) {
    auto state = std::make_shared<State>();
    state->sections = merge(sections);
    check_declarations(state->sections);
    return state;
  }

  void finish(const Layers& layers, Mistakes& mistakes) {
    path = layers.main->name;
    folder = layers.main->folder;
    if (layers.root) slots = check(sections, layers, mistakes);
    mistakes.throw_if_any();
    for (const auto& slot : slots.list) {
      if (slot.state == Slot::State::kActive || slot.state == Slot::State::kInactive) continue;
      throw Error(Code::kInternal, fmt::format("{} has neither a value nor a mistake", slot.key));
    }
    // what could not be read again must not be written
    int values = 0;
    resolved = print(sections, slots, values);
    if (values > kMaxNodes || resolved.size() > kMaxBytes) {
      mistakes.add({layers.main}, "",
                   fmt::format("resolves to {} values in {} bytes, more than {} in {}", values,
                               resolved.size(), kMaxNodes, kMaxBytes));
    }
    mistakes.throw_if_any();
    hash = sha256(resolved);
  }

  const Slot& active(const std::string& key) const {
    const Slot* slot = slots.find(key);
    if (!slot || slot->state != Slot::State::kActive) {
      throw Error(Code::kInternal, fmt::format("{} is not a field of this recipe", key));
    }
    return *slot;
  }
};

Recipe Recipe::load(const std::string& path, const std::vector<std::string>& overrides,
                    const std::vector<Section>& sections) {
  auto state = State::make(sections);
  Mistakes mistakes;
  state->finish(read_layers(path, overrides, mistakes), mistakes);
  Recipe recipe;
  recipe.state_ = state;
  return recipe;
}

static std::string beside(const std::string& origin) {
  return std::filesystem::path(origin).parent_path().string();
}

Recipe Recipe::parse(const std::string& text, const std::string& origin,
                     const std::vector<std::string>& overrides,
                     const std::vector<Section>& sections,
                     const std::optional<std::string>& folder) {
  auto state = State::make(sections);
  Mistakes mistakes;
  state->finish(parse_layers(text, origin, folder.value_or(beside(origin)), overrides, mistakes),
                mistakes);
  Recipe recipe;
  recipe.state_ = state;
  return recipe;
}

Recipe Recipe::parse_stored(const std::string& text, const std::string& origin,
                            const std::vector<std::string>& overrides,
                            const std::vector<Section>& sections,
                            const std::optional<std::string>& folder) try {
  auto state = State::make(sections);
  Mistakes mistakes;
  const auto adapt = [&](NodePtr root) {
    return adapt_stored(root, state->sections, state->left_out);
  };
  state->finish(
      parse_layers(text, origin, folder.value_or(beside(origin)), overrides, mistakes, adapt),
      mistakes);
  Recipe recipe;
  recipe.state_ = state;
  return recipe;
} catch (const Error& error) {
  if (error.code() != Code::kRecipe) throw;
  throw Error(Code::kCheckpoint, error.message(), error.where(), error.hint());
}

const StringList& Recipe::left_out() const { return state_->left_out; }
const std::string& Recipe::path() const { return state_->path; }
std::string Recipe::stem() const { return std::filesystem::path(state_->path).stem().string(); }
const std::string& Recipe::folder() const { return state_->folder; }
std::string Recipe::resolved() const { return state_->resolved; }
std::string Recipe::hash() const { return state_->hash; }

std::string Recipe::where(const std::string& key) const {
  const Slot* slot = state_->slots.find(key);
  if (slot && slot->written) return slot->mark.text();
  const auto section = state_->slots.section_marks.find(key.substr(0, key.find('.')));
  return section == state_->slots.section_marks.end() ? path() : section->second.text();
}

Error Recipe::placed(const Error& error) const {
  const std::string& key = error.where();
  if (error.code() != Code::kRecipe || !state_->slots.find(key)) return error;
  const std::string place = where(key);
  // an override names its key already
  return Error(error.code(), error.message(), place == "--set " + key ? place : place + ": " + key,
               error.hint());
}

bool Recipe::was_set(const std::string& key) const {
  const Slot* slot = state_->slots.find(key);
  return slot && slot->written;
}

const Value& Recipe::value(const std::string& key) const { return state_->active(key).value; }

std::vector<Difference> Recipe::differences(const Recipe& later) const {
  std::vector<Difference> list;
  auto active = [](const Slot* slot) {
    return slot && slot->state == Slot::State::kActive ? slot : nullptr;
  };
  auto text = [](const Slot* slot) {
    return slot ? flow_text(*to_node(slot->printed)) : std::string("(none)");
  };
  auto compare = [&](const Slot* before, const Slot* after) {
    if (before && after && before->printed == after->printed) return;
    const Slot& one = before ? *before : *after;
    bool exact = (before && before->field->exact) || (after && after->field->exact);
    list.push_back({one.key, text(before), text(after), exact, is_path(one.field->type)});
  };
  for (const auto& slot : state_->slots.list) {
    if (active(&slot)) compare(&slot, active(later.state_->slots.find(slot.key)));
  }
  for (const auto& slot : later.state_->slots.list) {
    if (active(&slot) && !active(state_->slots.find(slot.key))) compare(nullptr, &slot);
  }
  return list;
}

StringList Recipe::paths(const std::string& section) const {
  StringList found;
  for (const auto& slot : state_->slots.list) {
    if (slot.section != section || slot.state != Slot::State::kActive) continue;
    if (!is_path(slot.field->type)) continue;
    if (const auto* one = std::get_if<std::string>(&slot.value)) found.push_back(*one);
    if (const auto* more = std::get_if<StringList>(&slot.value))
      found.insert(found.end(), more->begin(), more->end());
  }
  std::erase(found, "");
  return found;
}

void Recipe::fill(const Section& section, void* object) const {
  for (const auto& field : section.fields) {
    std::string key = section.name + "." + field.name;
    const Slot* slot = state_->slots.find(key);
    if (!slot) {
      throw Error(Code::kInternal,
                  fmt::format("{} was not declared when {} was read", key, state_->path));
    }
    // a field of another model keeps the default of its struct
    if (slot->state != Slot::State::kActive || !state_->slots.holds(section.name, field)) continue;
    if (slot->field->type != field.type) {
      throw Error(Code::kInternal, fmt::format("{} is declared with two types", key));
    }
    field.store(object, slot->value);
  }
}

}  // namespace lehr::recipe
