// Between text and typed values: what a scalar, list or mapping of the file means to the field that
// it is written for, and how a value is written so that it means the same again.
#pragma once

#include <optional>
#include <string>

#include "engine/base/fields.h"
#include "engine/recipe/tree.h"

namespace lehr::recipe {

// `node` as `field` declares: type, range, choices, units, names. nullopt after a mistake for `key`
// was added. `stored`: by a release that may have known other units, names and ranges, so these are
// not asked.
std::optional<Value> read_value(const Field& field, const std::string& key, const Node& node,
                                Mistakes& mistakes, bool stored = false);

NodePtr to_node(const Value& value);         // reads back as the same value
std::string flow_text(const Node& node);     // one line of YAML; `${` is escaped
std::string value_text(const Value& value);  // of a scalar: the bare text, as in `when` values

std::string limits_text(const Field& field);  // "above 0 and at most 1", "" without limits
std::string units_text(const Field& field, const char* last = ", ");  // "steps, epochs"
std::string name_text(NameRule rule);  // "a plain name, without a slash", "" for kNone
std::string choices_text(const Field& field, const char* last = ", ");  // "a, b or c" with " or "
std::string type_text(FieldType type);                                  // "a whole number"
bool is_path(FieldType type);
bool is_duration(FieldType type);  // a list of them too
bool is_text(FieldType type);      // texts, paths and lists of them

}  // namespace lehr::recipe
