// The tree behind a recipe: what libyaml's events say, with the place of every key and value. The
// limits are held while events arrive, so that no file can take long or use much memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/recipe/mistakes.h"

namespace lehr::recipe {

constexpr int kMaxDepth = 32;
constexpr int kMaxNodes = 10000;      // keys and values, aliases counted as what they stand for
constexpr size_t kMaxKeyBytes = 128;  // so that any key can be written again on one line

struct Node;
using NodePtr = std::shared_ptr<const Node>;

struct Entry {
  std::string key;
  Mark mark;
  NodePtr value;
};

struct Node {
  enum class Kind { kScalar, kList, kMap };
  Kind kind = Kind::kScalar;
  Mark mark;
  SourcePtr base;       // where a relative path in `text` starts from
  std::string text;     // of a scalar
  bool quoted = false;  // a scalar in quotes or a block scalar: always text
  std::vector<NodePtr> items;
  std::vector<Entry> entries;
  int nodes = 1, height = 1;  // of the whole subtree

  // `key:` with nothing behind it
  bool is_nothing() const { return kind == Kind::kScalar && !quoted && text.empty(); }
};

// The one document in `text`, which has passed check_text. Duplicate keys are added to `mistakes`
// (the first one stays); anything worse is added and gives nullptr.
NodePtr parse_tree(const std::string& text, const SourcePtr& source, Mistakes& mistakes);

// `over` laid on `base`: mappings are merged key by key, anything else replaces. Either may be
// null.
NodePtr merge_trees(const NodePtr& base, const NodePtr& over);

NodePtr scalar_node(std::string text, bool quoted, const Mark& mark, const SourcePtr& base);

}  // namespace lehr::recipe
