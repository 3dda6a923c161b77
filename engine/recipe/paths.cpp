#include "engine/recipe/paths.h"

#include <algorithm>
#include <filesystem>

namespace lehr::recipe {
namespace fs = std::filesystem;
namespace {

std::string usable(const Node& node) {
  bool as_written = !node.base || node.base->folder.empty() || node.text.empty() ||
                    fs::path(node.text).is_absolute();
  return as_written ? node.text
                    : (fs::path(node.base->folder) / node.text).lexically_normal().string();
}

std::string from_folder(const Node& node, const std::string& folder) {
  std::string start = node.base ? node.base->folder : "";
  if (start == folder || node.text.empty() || fs::path(node.text).is_absolute()) return node.text;
  std::error_code error;
  fs::path path = fs::absolute(usable(node), error).lexically_normal();
  fs::path root = fs::absolute(folder.empty() ? "." : folder, error).lexically_normal();
  fs::path relative = path.lexically_relative(root);
  return error || relative.empty() ? path.string() : relative.string();
}

}  // namespace

SourcePtr working_directory() {
  static const auto source = std::make_shared<const Source>(Source{"default"});
  return source;
}

void place_paths(const Node& node, const std::string& folder, const Value& default_value,
                 Value& value, Value& printed) {
  if (auto* text = std::get_if<std::string>(&printed)) {
    value = usable(node);
    *text = from_folder(node, folder);
    if (printed == default_value) *text = "./" + *text;
  } else if (auto* list = std::get_if<StringList>(&printed)) {
    auto& values = std::get<StringList>(value);
    for (size_t i = 0; i < list->size(); ++i) {
      values[i] = usable(*node.items[i]);
      (*list)[i] = from_folder(*node.items[i], folder);
    }
    auto relative = [](const std::string& path) { return !path.empty() && path[0] != '/'; };
    auto first = std::find_if(list->begin(), list->end(), relative);
    if (printed == default_value && first != list->end()) *first = "./" + *first;
  }
}

}  // namespace lehr::recipe
