#include "engine/recipe/tree.h"

#include <fmt/format.h>
#include <yaml.h>

#include <algorithm>
#include <new>
#include <unordered_map>

namespace lehr::recipe {
namespace {

class Builder {
 public:
  Builder(const std::string& text, SourcePtr source, Mistakes& mistakes)
      : text_(text), source_(std::move(source)), mistakes_(mistakes) {
    if (!yaml_parser_initialize(&parser_)) throw std::bad_alloc();
    yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text_.data()),
                                 text_.size());
  }
  ~Builder() {
    yaml_event_delete(&event_);
    yaml_parser_delete(&parser_);
  }
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  NodePtr document() try {
    next();  // stream start
    next();
    if (event_.type == YAML_STREAM_END_EVENT) {
      fail({source_, 0, 0}, "holds no recipe", "a recipe holds sections like model and data");
    }
    next();
    NodePtr root = value(1);
    next();  // document end
    next();
    if (event_.type != YAML_STREAM_END_EVENT) {
      fail(here(), "a second document starts here", "a recipe is one document: remove the ---");
    }
    return root;
  } catch (const Stop&) {
    return nullptr;
  }

 private:
  struct Stop {};  // a mistake after which nothing sensible can be read

  [[noreturn]] void fail(const Mark& mark, const std::string& what, const std::string& hint = "") {
    mistakes_.add(mark, "", what, hint);
    throw Stop{};
  }
  Mark to_mark(const yaml_mark_t& m) const {
    return {source_, static_cast<int>(m.line) + 1, static_cast<int>(m.column) + 1};
  }
  Mark here() const { return to_mark(event_.start_mark); }
  std::string dotted(const std::string& key) const { return path_ + key; }

  void next() {
    yaml_event_delete(&event_);
    if (!yaml_parser_parse(&parser_, &event_)) syntax_error();
  }

  [[noreturn]] void syntax_error() {
    if (parser_.error == YAML_MEMORY_ERROR) throw std::bad_alloc();
    const auto& at = parser_.problem_mark;
    std::string what = fmt::format("not valid YAML: {}", parser_.problem ? parser_.problem : "?");
    if (parser_.context && parser_.context_mark.line != at.line) {
      what +=
          fmt::format(" {} that begins on line {}", parser_.context, parser_.context_mark.line + 1);
    } else if (parser_.context) {
      what += fmt::format(" {}", parser_.context);
    }
    std::string hint;
    if (what.find("cannot start any token") != std::string::npos) {
      hint =
          character(at.index) == '\t' ? "indent with spaces, not tabs" : "put the value in quotes";
    }
    fail(to_mark(at), what, hint);
  }

  // first byte of the character of that index
  char character(size_t index) const {
    for (char c : text_) {
      if ((c & 0xC0) != 0x80 && index-- == 0) return c;
    }
    return ' ';
  }

  void count(int nodes) {
    nodes_ += nodes;
    if (nodes_ > kMaxNodes) {
      fail(here(), fmt::format("more than {} values", kMaxNodes), "is this a recipe?");
    }
  }
  void check_depth(int depth) {
    if (depth > kMaxDepth) {
      fail(here(), fmt::format("nested deeper than {} levels", kMaxDepth), "is this a recipe?");
    }
  }
  void refuse_tag(const yaml_char_t* tag) {
    if (tag) fail(here(), "tags like !!str are not part of a recipe", "remove the tag");
  }

  // The value whose first event is the current one.
  NodePtr value(int depth) {
    check_depth(depth);
    if (event_.type == YAML_ALIAS_EVENT) return alias(depth);
    auto node = std::make_shared<Node>();
    node->mark = here();
    node->base = source_;
    count(1);
    std::string anchor;
    if (event_.type == YAML_SCALAR_EVENT) {
      anchor = scalar(*node);
    } else if (event_.type == YAML_SEQUENCE_START_EVENT) {
      refuse_tag(event_.data.sequence_start.tag);
      anchor = open_anchor(event_.data.sequence_start.anchor);
      list(*node, depth);
    } else {
      refuse_tag(event_.data.mapping_start.tag);
      anchor = open_anchor(event_.data.mapping_start.anchor);
      map(*node, depth);
    }
    if (!anchor.empty()) anchors_[anchor] = node;
    return node;
  }

  // until its value is complete, an anchor stands for nothing
  std::string open_anchor(const yaml_char_t* anchor) {
    if (!anchor) return "";
    std::string name = reinterpret_cast<const char*>(anchor);
    anchors_[name] = nullptr;
    return name;
  }

  NodePtr alias(int depth) {
    std::string name = reinterpret_cast<const char*>(event_.data.alias.anchor);
    auto found = anchors_.find(name);
    if (found == anchors_.end()) fail(here(), fmt::format("unknown alias *{}", shown(name)));
    if (!found->second) fail(here(), fmt::format("alias *{} stands inside itself", shown(name)));
    count(found->second->nodes);
    check_depth(depth + found->second->height - 1);
    return found->second;
  }

  std::string scalar(Node& node) {
    const auto& data = event_.data.scalar;
    refuse_tag(data.tag);
    node.text.assign(reinterpret_cast<const char*>(data.value), data.length);
    node.quoted = data.style != YAML_PLAIN_SCALAR_STYLE;
    if (node.text.find('\0') != std::string::npos) {
      fail(here(), "the text holds a NUL character", "remove the \\0");
    }
    return open_anchor(data.anchor);
  }

  void list(Node& node, int depth) {
    node.kind = Node::Kind::kList;
    for (next(); event_.type != YAML_SEQUENCE_END_EVENT; next()) {
      node.items.push_back(value(depth + 1));
      grow(node, *node.items.back());
    }
  }

  void map(Node& node, int depth) {
    node.kind = Node::Kind::kMap;
    std::unordered_map<std::string, int> lines;  // of the keys seen
    for (next(); event_.type != YAML_MAPPING_END_EVENT; next()) {
      if (event_.type != YAML_SCALAR_EVENT) fail(here(), "a key must be plain text");
      Node key;
      if (!scalar(key).empty()) fail(here(), "a key cannot have an anchor", "remove the &");
      count(1);
      Mark mark = here();
      if (key.text.empty()) fail(mark, "a key is missing before the colon");
      if (key.text.size() > kMaxKeyBytes) {
        fail(mark, fmt::format("a key of more than {} bytes", kMaxKeyBytes), "is this a recipe?");
      }
      auto [first, is_new] = lines.emplace(key.text, mark.line);
      if (!is_new) {
        mistakes_.add(mark, dotted(shown(key.text)),
                      fmt::format("duplicate key, first on line {}", first->second),
                      "keep one of them");
      }
      // the dotted name of this mapping, while its value is read
      size_t length = path_.size();
      path_ += shown(key.text) + ".";
      next();
      NodePtr child = value(depth + 1);
      path_.resize(length);
      grow(node, *child);
      ++node.nodes;
      if (is_new) node.entries.push_back({key.text, mark, child});
    }
  }

  static void grow(Node& node, const Node& child) {
    node.nodes += child.nodes;
    node.height = std::max(node.height, child.height + 1);
  }

  const std::string& text_;
  SourcePtr source_;
  Mistakes& mistakes_;
  yaml_parser_t parser_{};
  yaml_event_t event_{};
  std::unordered_map<std::string, NodePtr> anchors_;
  std::string path_;
  int nodes_ = 0;
};

}  // namespace

NodePtr parse_tree(const std::string& text, const SourcePtr& source, Mistakes& mistakes) {
  // libyaml skips a byte order mark only where it may guess the encoding
  if (text.starts_with("\xEF\xBB\xBF")) {
    const std::string rest = text.substr(3);
    return Builder(rest, source, mistakes).document();
  }
  return Builder(text, source, mistakes).document();
}

NodePtr merge_trees(const NodePtr& base, const NodePtr& over) {
  if (!base || !over) return over ? over : base;
  // an empty section changes nothing
  if (base->kind == Node::Kind::kMap && over->is_nothing()) return base;
  if (base->kind != Node::Kind::kMap || over->kind != Node::Kind::kMap) return over;
  auto merged = std::make_shared<Node>(*base);
  merged->mark = over->mark;
  std::unordered_map<std::string, size_t> index;
  for (size_t i = 0; i < merged->entries.size(); ++i) index[merged->entries[i].key] = i;
  for (const auto& entry : over->entries) {
    auto found = index.find(entry.key);
    if (found == index.end()) {
      merged->entries.push_back(entry);
    } else {
      auto& old = merged->entries[found->second];
      old = {entry.key, entry.mark, merge_trees(old.value, entry.value)};
    }
  }
  return merged;
}

NodePtr scalar_node(std::string text, bool quoted, const Mark& mark, const SourcePtr& base) {
  auto node = std::make_shared<Node>();
  node->mark = mark;
  node->base = base;
  node->text = std::move(text);
  node->quoted = quoted;
  return node;
}

}  // namespace lehr::recipe
