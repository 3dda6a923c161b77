#include "engine/recipe/layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "engine/recipe/text.h"

namespace lehr::recipe {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxFiles = 32;
constexpr int kOverrideOrder = 1000;  // after every file

// Removes `extends` from a tree and returns its node.
NodePtr take_extends(NodePtr& root) {
  auto is_extends = [](const Entry& entry) { return entry.key == "extends"; };
  auto found = std::find_if(root->entries.begin(), root->entries.end(), is_extends);
  if (found == root->entries.end()) return nullptr;
  NodePtr value = found->value;
  auto copy = std::make_shared<Node>(*root);
  std::erase_if(copy->entries, is_extends);
  root = copy;
  return value;
}

class Reader {
 public:
  explicit Reader(Mistakes& mistakes) : mistakes_(mistakes) {}

  // The merged tree of `path` and what it extends. `blame` is the line that names it.
  NodePtr file(const std::string& path, const std::optional<Mark>& blame) {
    auto source = std::make_shared<Source>(
        Source{path, fs::path(path).parent_path().string(), static_cast<int>(chain_.size())});
    if (!main) main = source;
    auto text = read_text(path, blame.value_or(Mark{source}), mistakes_);
    if (!text || !check_text(*text, source, mistakes_)) return nullptr;
    return tree(parse_tree(*text, source, mistakes_), source);
  }

  NodePtr tree(NodePtr root, const SourcePtr& source) {
    if (!root) return nullptr;
    if (root->kind != Node::Kind::kMap) {
      mistakes_.add(root->mark, "", "a recipe is a mapping of sections",
                    "write for example \"model: {name: cnn}\"");
      return nullptr;
    }
    NodePtr extends = take_extends(root);
    if (!extends) {
      complete = true;
      return root;
    }
    auto base_path = resolve(*extends, source);
    return base_path ? merge_trees(file(*base_path, extends->mark), root) : root;
  }

  SourcePtr main;
  bool complete = false;  // the last of the chain was read
  bool may_extend = true;

 private:
  // Path of the file that `extends` names, or nullopt after a mistake.
  std::optional<std::string> resolve(const Node& extends, const SourcePtr& source) {
    auto fail = [&](const std::string& what, const std::string& hint = "") {
      mistakes_.add(extends.mark, "extends", what, hint);
      return std::nullopt;
    };
    if (!may_extend) return fail("only a recipe file can extend another one", "remove it");
    if (extends.kind != Node::Kind::kScalar || extends.text.empty()) {
      return fail("must be the path of one recipe", "write for example \"extends: base.yaml\"");
    }
    if (extends.text.find("${") != std::string::npos) {
      return fail("cannot hold ${...}", "write the path itself");
    }
    if (fs::path(extends.text).is_absolute()) {
      return fail("must be relative to this file", "keep the base beside the recipe, or below it");
    }
    fs::path path = (fs::path(source->folder) / extends.text).lexically_normal();
    // links are followed before the folder is compared, so that none leads out of it
    std::error_code error;
    // of a relative path that is not there the standard leaves the folder out
    fs::path real = fs::weakly_canonical(fs::absolute(path), error);
    fs::path root =
        fs::weakly_canonical(fs::absolute(main->folder.empty() ? "." : main->folder), error);
    if (root.filename().empty()) root = root.parent_path();  // "folder/."
    auto [end, unused] = std::mismatch(root.begin(), root.end(), real.begin(), real.end());
    if (error || end != root.end()) {
      return fail(fmt::format("'{}' lies outside the folder of the recipe", shown(extends.text)),
                  "keep the base beside the recipe, or below it");
    }
    if (chain_.empty()) chain_.push_back(fs::weakly_canonical(main->name, error).string());
    if (std::find(chain_.begin(), chain_.end(), real.string()) != chain_.end()) {
      return fail(fmt::format("'{}' extends itself in a circle", shown(extends.text)));
    }
    if (chain_.size() >= kMaxFiles) {
      return fail(fmt::format("more than {} files extend one another", kMaxFiles));
    }
    chain_.push_back(real.string());
    return path.string();
  }

  Mistakes& mistakes_;
  std::vector<std::string> chain_;  // real paths of the files read so far
};

// The tree of one override "section.key=value", or nullptr after a mistake.
NodePtr override_tree(const std::string& text, int order, Mistakes& mistakes) {
  size_t equals = text.find('=');
  std::string key = text.substr(0, equals);
  auto source = std::make_shared<Source>(Source{"--set " + shown(key), "", order, false});
  Mark mark{source};
  auto fail = [&](const std::string& what, const std::string& hint) {
    mistakes.add(mark, "", what, hint);
    return nullptr;
  };
  std::vector<std::string> names;
  for (size_t at = 0; at <= key.size();) {
    size_t dot = std::min(key.find('.', at), key.size());
    names.push_back(key.substr(at, dot - at));
    at = dot + 1;
  }
  bool is_key = equals != std::string::npos && names.size() >= 2 && names.size() < kMaxDepth;
  for (const auto& name : names) is_key &= !name.empty() && name.size() <= kMaxKeyBytes;
  if (!is_key)
    return fail("not of the form section.key=value", "for example --set training.seed=1");
  if (!check_text(text, source, mistakes)) return nullptr;

  std::string value = text.substr(equals + 1);
  if (value.size() > kMaxBytes) return fail("the value is larger than 1 MiB", "");
  NodePtr node;
  // lists, mappings and quoted text are YAML, everything else is the scalar as it stands
  if (value.find_first_of("[{\"'") == 0) {
    node = parse_tree(value, source, mistakes);
    if (!node) return nullptr;
  } else {
    node = scalar_node(value, false, mark, source);
  }
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    auto map = std::make_shared<Node>();
    map->kind = Node::Kind::kMap;
    map->mark = mark;
    map->base = source;
    map->entries.push_back({*name, mark, node});
    node = map;
  }
  return node;
}

Layers finish(Reader& reader, NodePtr root, const std::vector<std::string>& overrides,
              Mistakes& mistakes) {
  int order = kOverrideOrder;
  for (const auto& text : overrides) {
    NodePtr tree = override_tree(text, order++, mistakes);
    if (root && tree) root = merge_trees(root, tree);
  }
  return {root, reader.main, reader.complete, false};
}

}  // namespace

Layers read_layers(const std::string& path, const std::vector<std::string>& overrides,
                   Mistakes& mistakes) {
  Reader reader(mistakes);
  NodePtr root = reader.file(path, std::nullopt);
  return finish(reader, root, overrides, mistakes);
}

Layers parse_layers(const std::string& text, const std::string& origin, const std::string& folder,
                    const std::vector<std::string>& overrides, Mistakes& mistakes,
                    const std::function<NodePtr(NodePtr)>& adapt) {
  Reader reader(mistakes);
  reader.may_extend = false;
  auto source = std::make_shared<Source>(Source{origin, folder});
  reader.main = source;
  NodePtr root;
  if (text.size() > kMaxBytes) {
    mistakes.add({source}, "", "is larger than 1 MiB", "is this a recipe?");
  } else if (check_text(text, source, mistakes)) {
    root = reader.tree(parse_tree(text, source, mistakes), source);
  }
  if (root && adapt) root = adapt(root);
  Layers layers = finish(reader, root, overrides, mistakes);
  layers.stored = adapt != nullptr;
  return layers;
}

}  // namespace lehr::recipe
