#include "engine/recipe/scalars.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/base/error.h"

namespace lehr::recipe {
namespace {

// What is wrong with a value, and what to write instead.
struct Wrong {
  std::string what, hint;
};

std::string described(const Node& node) {
  if (node.kind == Node::Kind::kList) return "a list";
  if (node.kind == Node::Kind::kMap) return "a mapping";
  if (node.is_nothing()) return "nothing";
  return node.quoted ? fmt::format("the text \"{}\"", shown(node.text))
                     : fmt::format("'{}'", shown(node.text));
}

// digits with optional sign; nullopt: not a number, or beyond 64 bits
std::optional<int64_t> to_int(const std::string& text) {
  const char* first = text.data() + (text.starts_with('+') && text[1] != '-');
  const char* last = text.data() + text.size();
  int64_t value = 0;
  auto [end, error] = std::from_chars(first, last, value, 10);
  if (first == last || end != last || error != std::errc()) return std::nullopt;
  return value;
}

// decimal, with optional sign and exponent; inf as YAML writes it (.inf) or plain
std::optional<double> to_float(const std::string& text) {
  const char* first = text.data() + (text.starts_with('+') && text[1] != '-');
  const char* last = text.data() + text.size();
  std::string word(first, last);
  if (word == ".inf" || word == "inf") return INFINITY;
  if (word == "-.inf" || word == "-inf") return -INFINITY;
  // from_chars would take nan and infinity too
  if (word.find_first_not_of("0123456789+-.eE") != std::string::npos) return std::nullopt;
  double value = 0;
  auto [end, error] = std::from_chars(first, last, value);
  if (end != last || error != std::errc()) return std::nullopt;
  return value;
}

std::string without_underscores(std::string text) {
  std::erase(text, '_');
  return text;
}

std::string number_hint(const Node& node, bool whole) {
  if (node.quoted) return to_float(node.text) ? "remove the quotes" : "";
  std::string plain = without_underscores(node.text);
  if (plain.starts_with("0x") && plain.size() < 18) {
    int64_t value = 0;
    auto [end, error] = std::from_chars(plain.data() + 2, plain.data() + plain.size(), value, 16);
    if (error == std::errc() && *end == 0) return fmt::format("write {}", value);
  }
  size_t sign = plain.find_first_of("+-") == 0;
  if (whole && plain.find_first_not_of("0123456789", sign) == std::string::npos) {
    if (plain.size() > 18) return "it does not fit into 64 bits";
  }
  auto value = to_float(plain);
  if (!value || !std::isfinite(*value)) return "";
  if (!whole) return plain == node.text ? "" : fmt::format("write {}", plain);
  if (*value != std::floor(*value) || std::abs(*value) > 9e15) return "";
  return fmt::format("write {}", static_cast<int64_t>(*value));
}

std::string bool_hint(const Node& node) {
  std::string word = node.text;
  std::transform(word.begin(), word.end(), word.begin(), [](char c) { return c | 0x20; });
  for (const char* yes : {"yes", "on", "y", "true"}) {
    if (word == yes) return "write true";
  }
  for (const char* no : {"no", "off", "n", "false"}) {
    if (word == no) return "write false";
  }
  return "";
}

FieldType item_type(FieldType list) {
  switch (list) {
    case FieldType::kIntList:
      return FieldType::kInt;
    case FieldType::kFloatList:
    case FieldType::kFloatMap:
      return FieldType::kFloat;
    case FieldType::kPathList:
      return FieldType::kPath;
    case FieldType::kDurationList:
      return FieldType::kDuration;
    default:
      return FieldType::kString;
  }
}

bool is_list(FieldType type) {
  return type == FieldType::kIntList || type == FieldType::kFloatList ||
         type == FieldType::kStringList || type == FieldType::kPathList ||
         type == FieldType::kDurationList;
}

std::string joined(const StringList& list, const char* last) {
  std::string text;
  for (size_t i = 0; i < list.size(); ++i)
    text += (i == 0 ? "" : i + 1 == list.size() ? last : ", ") + list[i];
  return text;
}

bool takes(const Field& field, Duration::Unit unit) {
  return std::find(field.unit_list.begin(), field.unit_list.end(), unit) != field.unit_list.end();
}

std::string duration_text(const Field& field) {
  return field.unit_list == kTime ? "a time" : "a duration in " + units_text(field, " or ");
}

// What may be written for a field of durations: "500 (steps), 2ep or 30min".
std::string duration_hint(const Field& field) {
  static const char* examples[] = {"500 (steps)", "2ep", "30min", "10000samples", "1e9tok"};
  StringList list;
  for (auto unit : field.unit_list) list.emplace_back(examples[static_cast<int>(unit)]);
  return "write for example " + joined(list, " or ");
}

// blanks at its ends are part of a quoted text or of an override
bool has_blank_end(const std::string& text) {
  const char* blanks = " \t\r\n";
  return text.find_first_of(blanks) == 0 ||
         (!text.empty() && text.find_last_of(blanks) + 1 == text.size());
}

std::optional<Value> read_scalar(const Field& field, const Node& node, bool stored, Wrong& wrong) {
  const FieldType type = is_list(field.type) || field.type == FieldType::kFloatMap
                             ? item_type(field.type)
                             : field.type;
  auto bad = [&](std::string hint) -> std::optional<Value> {
    if (hint.empty() && has_blank_end(node.text)) hint = "remove the blank at its end";
    wrong = {fmt::format("must be {}, not {}", type_text(type), described(node)), std::move(hint)};
    return std::nullopt;
  };
  if (node.kind == Node::Kind::kMap) return bad("");
  if (node.kind == Node::Kind::kList) {
    return bad(node.items.size() == 1 ? "remove the brackets or the dash" : "");
  }
  if (node.is_nothing()) {
    bool text = type == FieldType::kString || type == FieldType::kPath;
    wrong = {"has no value", text ? "write \"\" for an empty text, or remove the key"
                                  : "write " + type_text(type) + ", or remove the key"};
    return std::nullopt;
  }
  switch (type) {
    case FieldType::kBool:
      if (!node.quoted && (node.text == "true" || node.text == "false")) return node.text == "true";
      return bad(bool_hint(node));
    case FieldType::kInt:
      if (auto value = node.quoted ? std::nullopt : to_int(node.text)) return *value;
      return bad(number_hint(node, true));
    case FieldType::kFloat:
      if (auto value = node.quoted ? std::nullopt : to_float(node.text)) return *value;
      return bad(number_hint(node, false));
    case FieldType::kDuration: {
      auto value = parse_duration(node.text);
      if (value && (stored || takes(field, value->unit))) return *value;
      const std::string hint = duration_hint(field);
      wrong = {fmt::format("must be {}, not {}", duration_text(field), described(node)), hint};
      if (!value) return std::nullopt;
      if (value->unit == Duration::Unit::kSteps && field.unit_list == kTime)
        wrong.hint = fmt::format("a bare number means steps; write {}s, or min, h or d", node.text);
      else if (!field.unit_reason.empty())
        wrong.hint = field.unit_reason + ": " + hint;
      return std::nullopt;
    }
    default:
      return node.text;
  }
}

// Of a choice that is none: those that were meant.
std::string choices_meant(const std::string& text, const StringList& list) {
  auto plain = [](const std::string& word) {
    std::string out;
    for (char c : word)
      if (c != '-' && c != '_' && c != ' ') out += c >= 'A' && c <= 'Z' ? char(c | 0x20) : c;
    return out;
  };
  const std::string word = plain(text);
  StringList meant;
  for (const auto& choice : list)
    if (plain(choice) == word) meant.push_back(choice);
  if (meant.empty() && word.size() > 1)
    for (const auto& choice : list)
      if (plain(choice).find(word) != std::string::npos) meant.push_back(choice);
  if (meant.empty())
    if (const std::string near = nearest(text, list); !near.empty()) meant.push_back(near);
  return meant.empty() ? "" : fmt::format("did you mean {}?", joined(meant, " or "));
}

double as_number(const Value& value) {
  if (auto* integer = std::get_if<int64_t>(&value)) return static_cast<double>(*integer);
  if (auto* duration = std::get_if<Duration>(&value)) return duration->value;
  return std::get<double>(value);
}

// Range, choices and names of one scalar.
bool check_limits(const Field& field, const Node& node, const Value& value, bool stored,
                  Wrong& wrong) {
  if (auto* text = std::get_if<std::string>(&value)) {
    // the default may be "", which stands for a name found elsewhere
    const bool is_default = value == field.default_value;
    if (const std::string problem =
            stored || is_default ? "" : name_problem(*text, field.name_rule);
        !problem.empty()) {
      wrong = {fmt::format("must be {}, and {} {}", name_text(field.name_rule), described(node),
                           problem),
               ""};
      return false;
    }
    const auto& list = field.choice_list;
    if (list.empty() || std::find(list.begin(), list.end(), *text) != list.end()) return true;
    wrong = {fmt::format("must be {}, not {}", choices_text(field, " or "), described(node)),
             choices_meant(*text, list)};
    return false;
  }
  if (stored || (!field.minimum && !field.maximum)) return true;
  double number = as_number(value);
  bool low = field.minimum &&
             (field.exclusive_minimum ? number <= *field.minimum : number < *field.minimum);
  if (!low && !(field.maximum && number > *field.maximum)) return true;
  wrong = {fmt::format("must be {}, not {}", limits_text(field), described(node)), ""};
  return false;
}

template <class T>
Value gather(std::vector<Value>& items) {
  std::vector<T> list;
  for (auto& item : items) list.push_back(std::get<T>(std::move(item)));
  return list;
}

}  // namespace

std::optional<Value> read_value(const Field& field, const std::string& key, const Node& node,
                                Mistakes& mistakes, bool stored) {
  bool is_null = node.kind == Node::Kind::kScalar && !node.quoted &&
                 (node.text.empty() || node.text == "~" || node.text == "null");
  if (field.nullable && is_null) return Value();

  // every item is read, so that all its mistakes are told
  bool good = true;
  auto item = [&](const std::string& name, const Node& child) {
    Wrong wrong;
    auto value = read_scalar(field, child, stored, wrong);
    if (value && check_limits(field, child, *value, stored, wrong)) return value;
    mistakes.add(child.mark, key, name + wrong.what, wrong.hint);
    good = false;
    return std::optional<Value>();
  };
  auto bad_shape = [&](const std::string& hint) {
    mistakes.add(node.mark, key,
                 fmt::format("must be {}, not {}", type_text(field.type), described(node)), hint);
    return std::nullopt;
  };

  if (is_list(field.type)) {
    if (node.kind != Node::Kind::kList) {
      bool one = node.kind == Node::Kind::kScalar && !node.text.empty();
      return bad_shape(one ? fmt::format("write [{}]", shown(node.text)) : "");
    }
    std::vector<Value> items;
    for (size_t i = 0; i < node.items.size(); ++i) {
      auto value = item(fmt::format("item {} ", i + 1), *node.items[i]);
      if (value) items.push_back(std::move(*value));
    }
    if (!good) return std::nullopt;
    if (field.type == FieldType::kIntList) return gather<int64_t>(items);
    if (field.type == FieldType::kFloatList) return gather<double>(items);
    if (field.type == FieldType::kDurationList) return gather<Duration>(items);
    return gather<std::string>(items);
  }
  if (field.type == FieldType::kFloatMap) {
    if (node.kind != Node::Kind::kMap) return bad_shape("write for example {cat: 1, dog: 2.5}");
    FloatMap map;
    for (const auto& entry : node.entries) {
      auto value = item(fmt::format("'{}' ", shown(entry.key)), *entry.value);
      if (value) map.emplace_back(entry.key, std::get<double>(*value));
    }
    return good ? std::optional<Value>(std::move(map)) : std::nullopt;
  }
  Wrong wrong;
  auto value = read_scalar(field, node, stored, wrong);
  if (value && check_limits(field, node, *value, stored, wrong)) return value;
  mistakes.add(node.mark, key, wrong.what, wrong.hint);
  return std::nullopt;
}

std::string limits_text(const Field& field) {
  auto text = [](std::optional<double> limit) {
    return limit && std::isfinite(*limit) ? fmt::format("{}", *limit) : "";
  };
  std::string low = text(field.minimum), high = text(field.maximum);
  if (high.empty() && low.empty()) return "";
  if (high.empty()) return (field.exclusive_minimum ? "above " : "at least ") + low;
  if (low.empty()) return "at most " + high;
  if (field.exclusive_minimum) return "above " + low + " and at most " + high;
  return "from " + low + " to " + high;
}

std::string choices_text(const Field& field, const char* last) {
  StringList list = field.choice_list;
  std::replace(list.begin(), list.end(), std::string(), std::string("\"\""));
  return joined(list, last);
}

std::string units_text(const Field& field, const char* last) {
  static const char* names[] = {"steps", "epochs", "time", "samples", "tokens"};
  StringList list;
  for (auto unit : field.unit_list) list.emplace_back(names[static_cast<int>(unit)]);
  return joined(list, last);
}

std::string name_text(NameRule rule) {
  if (rule == NameRule::kNone) return "";
  return rule == NameRule::kPlain ? "a plain file name" : "a plain name, or names with / between";
}

std::string type_text(FieldType type) {
  switch (type) {
    case FieldType::kBool:
      return "true or false";
    case FieldType::kInt:
      return "a whole number";
    case FieldType::kFloat:
      return "a number";
    case FieldType::kString:
      return "text";
    case FieldType::kPath:
      return "a path";
    case FieldType::kDuration:
      return "a duration";
    case FieldType::kIntList:
      return "a list of whole numbers";
    case FieldType::kFloatList:
      return "a list of numbers";
    case FieldType::kStringList:
      return "a list of texts";
    case FieldType::kPathList:
      return "a list of paths";
    case FieldType::kDurationList:
      return "a list of durations";
    default:
      return "a mapping of names to numbers";
  }
}

bool is_path(FieldType type) { return type == FieldType::kPath || type == FieldType::kPathList; }

bool is_duration(FieldType type) {
  return type == FieldType::kDuration || type == FieldType::kDurationList;
}

bool is_text(FieldType type) {
  return is_path(type) || type == FieldType::kString || type == FieldType::kStringList;
}

}  // namespace lehr::recipe
