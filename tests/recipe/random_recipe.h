// Random recipes for the sample sections, with the values that they must be read as: every type,
// every way to write it, and texts made of what YAML readers stumble over.
#pragma once

#include <fmt/format.h>

#include <map>
#include <random>
#include <string>

#include "engine/recipe/recipe.h"

namespace lehr::recipe {

class RandomRecipe {
 public:
  explicit RandomRecipe(unsigned seed) : random_(seed) {}

  std::string text;
  std::map<std::string, Value> values;  // by "section.key", of the fields that are written

  RandomRecipe& make(const std::vector<Section>& merged) {
    for (const auto& section : merged) {
      model_name_ = section.name == "model" ? "mlp" : model_name_;
      std::vector<const Field*> chosen;
      for (const auto& field : section.fields) {
        bool wanted = field.is_required || pick(2) == 0;
        if (!field.when_key.empty()) {
          wanted &= field.when_values[0] == model_name_;
        }
        if (!wanted) continue;
        Value value = random_value(field);
        if (field.name == "name" && section.name == "model")
          model_name_ = std::get<std::string>(value);
        values[section.name + "." + field.name] = value;
        chosen.push_back(&field);
      }
      write_section(section.name, chosen);
    }
    return *this;
  }

 private:
  size_t pick(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  std::string random_text() {
    static const std::vector<std::string> parts = {
        "a",      "B",      "0",   "9",    " ",   "  ",   "'",      "\"",     "\\",
        "#",      ": ",     ":",   "${",   "$",   "$$",   "}",      "{",      "[",
        "]",      ",",      "\n",  "\t",   "é",   "日本", "🙂",   "%",      "@",
        "`",      "*x",     "&x",  "!",    "|",   ">",    "~",      "null",   "yes",
        "-",      "- ",     "?",   "=",    "<<",  "true", "1e3",    "0x1",    "\r",
        "\x01",   "x.y",    "/",   "..",   "no",  "\x7f", "\u0085", "\u2028", "\uFEFF",
        "\uFFFE", "\u00A0", "---", "\n\n", "...", "012",  ".inf"};
    std::string out;
    for (size_t n = pick(6); n > 0; --n) out += parts[pick(parts.size())];
    return out;
  }

  double random_double() {
    if (pick(4) == 0) return static_cast<double>(pick(100));
    return std::ldexp(std::uniform_real_distribution<double>(-1, 1)(random_), int(pick(200)) - 100);
  }

  double in_limits(const Field& field, double value) {
    if (field.minimum && field.maximum) {
      return *field.minimum + (*field.maximum - *field.minimum) * double(pick(1001)) / 1000;
    }
    if (field.minimum) value = std::abs(value) + *field.minimum + 1e-3;
    return value;
  }

  Value random_value(const Field& field) {
    if (field.nullable && pick(4) == 0) return {};
    size_t count = pick(5);
    switch (field.type) {
      case FieldType::kBool:
        return pick(2) == 0;
      case FieldType::kInt:
        return random_int(field);
      case FieldType::kFloat:
        return in_limits(field, random_double());
      case FieldType::kDuration:
        return random_duration(field);
      case FieldType::kDurationList: {
        DurationList list;
        for (; count > 0; --count) list.push_back(random_duration(field));
        return list;
      }
      case FieldType::kIntList: {
        IntList list;
        for (; count > 0; --count) list.push_back(random_int(field));
        return list;
      }
      case FieldType::kFloatList: {
        FloatList list;
        for (; count > 0; --count) list.push_back(in_limits(field, random_double()));
        return list;
      }
      case FieldType::kStringList:
      case FieldType::kPathList: {
        StringList list;
        for (; count > 0; --count) list.push_back(random_text());
        return list;
      }
      case FieldType::kFloatMap: {
        FloatMap map;
        for (size_t i = 0; i < count; ++i) {
          map.emplace_back(random_text() + std::to_string(i), in_limits(field, random_double()));
        }
        return map;
      }
      default:
        if (!field.choice_list.empty()) return field.choice_list[pick(field.choice_list.size())];
        if (field.name_rule != NameRule::kNone) return fmt::format("lr1e-{} b", pick(9));
        return random_text();
    }
  }

  Duration random_duration(const Field& field) {
    return {double(1 + pick(100000)), field.unit_list[pick(field.unit_list.size())]};
  }

  int64_t random_int(const Field& field) {
    auto low = static_cast<int64_t>(field.minimum.value_or(-1e6));
    return low + static_cast<int64_t>(pick(pick(2) ? 10 : 1u << 30));
  }

  static std::string escaped(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.compare(i, 2, "${") == 0) out += '$';
      out += text[i];
    }
    return out;
  }

  // in one of YAML's quotes; \x and \u escapes for what a file may not hold
  std::string write_text(const std::string& raw) {
    bool simple = true;
    for (unsigned char c : raw) simple &= c >= 0x20 && c < 0x7f;
    std::string out;
    if (simple && pick(2) == 0) {
      for (char c : raw) out += c == '\'' ? std::string("''") : std::string(1, c);
      return "'" + out + "'";
    }
    for (size_t i = 0; i < raw.size(); ++i) {
      unsigned char c = raw[i];
      if (c == '"' || c == '\\') out += '\\';
      if (c < 0x20 || c == 0x7f) {
        out += fmt::format("\\x{:02X}", c);
      } else if (raw.compare(i, 2, "\u0085") == 0) {
        out += "\\N", ++i;
      } else if (raw.compare(i, 3, "\u2028") == 0) {
        out += "\\L", i += 2;
      } else if (raw.compare(i, 3, "\uFEFF") == 0) {
        out += "\\uFEFF", i += 2;
      } else if (raw.compare(i, 3, "\uFFFE") == 0) {
        out += "\\uFFFE", i += 2;
      } else {
        out += static_cast<char>(c);
      }
    }
    return '"' + out + '"';
  }

  std::string write_int(int64_t value) {
    if (value >= 0 && pick(3) == 0) return fmt::format("+00{}", value);
    return fmt::format("{}", value);
  }
  std::string write_double(double value) {
    return pick(2) ? fmt::format("{:.17g}", value) : fmt::format("{:.17e}", value);
  }
  std::string write_item(int64_t value) { return write_int(value); }
  std::string write_item(double value) { return write_double(value); }
  std::string write_item(const Duration& value) { return to_string(value); }
  std::string write_item(const std::string& value) { return write_text(escaped(value)); }

  std::string write_value(const Value& value) {
    return std::visit(
        [&](const auto& v) -> std::string {
          using T = std::decay_t<decltype(v)>;
          if constexpr (std::is_same_v<T, std::monostate>) {
            static const char* nulls[] = {" ~", " null", ""};
            return nulls[pick(3)];
          } else if constexpr (std::is_same_v<T, bool>) {
            return v ? " true" : " false";
          } else if constexpr (std::is_same_v<T, FloatMap>) {
            std::string out;
            for (const auto& [key, number] : v) {
              out += (out.empty() ? "" : ", ") + write_text(key) + ": " + write_double(number);
            }
            return " {" + out + "}";
          } else if constexpr (std::is_same_v<T, IntList> || std::is_same_v<T, FloatList> ||
                               std::is_same_v<T, StringList> || std::is_same_v<T, DurationList>) {
            std::string out;
            if (v.empty() || pick(2) == 0) {
              for (const auto& item : v) out += (out.empty() ? "" : ", ") + write_item(item);
              return " [" + out + "]";
            }
            for (const auto& item : v) out += "\n        - " + write_item(item);
            return out;
          } else {
            return " " + write_item(v);
          }
        },
        value);
  }

  // nested mappings for dotted names: `augment.crop.pad` stands under `augment:` and `crop:`
  void write_section(const std::string& section, const std::vector<const Field*>& fields) {
    if (fields.empty()) return;
    text += section + ":\n";
    std::map<std::string, std::vector<std::pair<std::string, const Field*>>> groups;
    for (const auto* field : fields) {
      size_t dot = field->name.rfind('.');
      if (dot == std::string::npos) {
        text +=
            "  " + field->name + ":" + write_value(values.at(section + "." + field->name)) + "\n";
      } else {
        groups[field->name.substr(0, dot)].emplace_back(field->name.substr(dot + 1), field);
      }
    }
    if (groups.empty()) return;
    text += "  augment:\n";
    for (const auto& [group, members] : groups) {
      bool deeper = group != "augment";
      if (deeper) text += "    crop:\n";
      for (const auto& [name, field] : members) {
        text += (deeper ? "      " : "    ") + name + ":" +
                write_value(values.at(section + "." + field->name)) + "\n";
      }
    }
  }

  std::mt19937 random_;
  std::string model_name_ = "mlp";
};

}  // namespace lehr::recipe
