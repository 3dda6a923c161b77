// Values back to text: quoted wherever YAML's own readers, old or new, might see another type.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "engine/recipe/scalars.h"

namespace lehr::recipe {
namespace {

std::string float_text(double value) {
  if (std::isnan(value)) return ".nan";
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  return fmt::format("{}", value);
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// May the text stand without quotes and still be text to every YAML reader?
bool is_plain(const std::string& text) {
  if (text.empty() || text.size() > 200) return false;
  bool starts_well = is_letter(text[0]) || (text[0] == '/' && text.size() > 1) ||
                     text.starts_with("./") || text.starts_with("../");
  if (!starts_well || text.back() == ' ') return false;
  bool all_good = std::all_of(text.begin(), text.end(), [](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '/' || c == '-' || c == '+' ||
           c == ' ';
  });
  if (!all_good) return false;
  std::string word = text;
  std::transform(word.begin(), word.end(), word.begin(), [](char c) { return c | 0x20; });
  static constexpr std::array words = {"true", "false", "yes", "no",   "on",
                                       "off",  "y",     "n",   "null", "extends"};
  return std::find(words.begin(), words.end(), word) == words.end();
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char c = text[i], next = i + 1 < text.size() ? text[i + 1] : 0;
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", c);
    } else if (c == 0xC2 && next < 0xA0) {  // U+0080 to U+009F
      out += fmt::format("\\x{:02x}", next);
      ++i;
    } else if (text.compare(i, 3, "\xE2\x80\xA8") == 0 || text.compare(i, 3, "\xE2\x80\xA9") == 0) {
      out += fmt::format("\\u{:04x}", 0x2000 + (static_cast<unsigned char>(text[i + 2]) & 0x3F));
      i += 2;  // line and paragraph separators
    } else if (text.compare(i, 3, "\xEF\xBB\xBF") == 0) {
      out += "\\ufeff";
      i += 2;
    } else if (text.compare(i, 3, "\xEF\xBF\xBE") == 0 || text.compare(i, 3, "\xEF\xBF\xBF") == 0) {
      out += fmt::format("\\uff{:02x}", 0xFE + (text[i + 2] & 1));
      i += 2;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + '"';
}

std::string escape_references(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "${") == 0) out += '$';
    out += text[i];
  }
  return out;
}

NodePtr plain(std::string text) { return scalar_node(std::move(text), false, {}, nullptr); }
NodePtr text_node(std::string text) { return scalar_node(std::move(text), true, {}, nullptr); }

NodePtr item_node(int64_t value) { return plain(fmt::format("{}", value)); }
NodePtr item_node(double value) { return plain(float_text(value)); }
NodePtr item_node(const std::string& value) { return text_node(value); }
NodePtr item_node(const Duration& value) { return plain(to_string(value)); }

void add_child(Node& parent, NodePtr child) {
  parent.nodes += child->nodes;
  parent.items.push_back(std::move(child));
}

}  // namespace

NodePtr to_node(const Value& value) {
  return std::visit(
      [](const auto& v) -> NodePtr {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return plain("null");
        } else if constexpr (std::is_same_v<T, bool>) {
          return plain(v ? "true" : "false");
        } else if constexpr (std::is_same_v<T, FloatMap>) {
          auto node = std::make_shared<Node>();
          node->kind = Node::Kind::kMap;
          node->nodes += 2 * static_cast<int>(v.size());
          for (const auto& [key, number] : v) node->entries.push_back({key, {}, item_node(number)});
          return node;
        } else if constexpr (std::is_same_v<T, IntList> || std::is_same_v<T, FloatList> ||
                             std::is_same_v<T, StringList> || std::is_same_v<T, DurationList>) {
          auto node = std::make_shared<Node>();
          node->kind = Node::Kind::kList;
          for (const auto& item : v) add_child(*node, item_node(item));
          return node;
        } else {
          return item_node(v);
        }
      },
      value);
}

std::string flow_text(const Node& node) {
  std::string out;
  if (node.kind == Node::Kind::kList) {
    for (const auto& item : node.items) out += (out.empty() ? "" : ", ") + flow_text(*item);
    return "[" + out + "]";
  }
  if (node.kind == Node::Kind::kMap) {
    for (const auto& entry : node.entries) {
      out += out.empty() ? "" : ", ";
      out += (is_plain(entry.key) ? entry.key : quoted(entry.key)) + ": ";
      out += flow_text(*entry.value);
    }
    return "{" + out + "}";
  }
  if (!node.quoted) return node.text;
  return is_plain(node.text) ? node.text : quoted(escape_references(node.text));
}

std::string value_text(const Value& value) {
  NodePtr node = to_node(value);
  return node->kind == Node::Kind::kScalar ? node->text : flow_text(*node);
}

}  // namespace lehr::recipe
