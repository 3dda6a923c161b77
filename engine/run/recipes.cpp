#include "engine/run/recipes.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/output.h"

namespace lehr::run {
namespace {

// build/../recipes in a checkout, lib/../share/lehr/recipes when installed
std::string folder() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&list_recipes), &info) == 0 || info.dli_fname == nullptr)
    throw Error(Code::kInternal, "cannot find where liblehr.so lies");
  const auto library = std::filesystem::canonical(info.dli_fname).parent_path();
  for (const char* candidate : {"../share/lehr/recipes", "../recipes"}) {
    const auto path = library / candidate;
    if (std::filesystem::is_directory(path)) return std::filesystem::canonical(path).string();
  }
  throw Error(Code::kUsage, "the shipped recipes are not beside this program", library.string());
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const auto& name : list_folder(folder()))
    if (name.ends_with(".yaml")) found.push_back(name.substr(0, name.size() - 5));
  return found;
}

}  // namespace

std::string list_recipes() {
  std::string text;
  for (const auto& name : names()) {
    const std::string content = read_file(join_path(folder(), name + ".yaml"));
    std::string first = content.substr(0, content.find('\n'));
    first.erase(0, first.find_first_not_of("# "));
    text += fmt::format("{:<28} {}\n", name, first);
  }
  return text;
}

void copy_recipe(const std::string& name, const std::string& output) {
  const auto known = names();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    const std::string near = nearest(name, known);
    throw Error(Code::kUsage, "there is no shipped recipe " + name, "",
                near.empty() ? "lehr recipes list shows them" : "did you mean " + near + "?");
  }
  if (file_exists(output))
    throw Error(Code::kUsage, "the file exists already", output, "name a new file");
  write_output(output, read_file(join_path(folder(), name + ".yaml")));
}

}  // namespace lehr::run
