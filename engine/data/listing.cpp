#include "engine/data/listing.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "engine/base/error.h"

namespace lehr::data {
namespace fs = std::filesystem;
namespace {

bool is_picture(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

void add(const fs::path& folder, const fs::path& below, size_t cls, bool deep,
         PictureListing& out) {
  const size_t from = out.files.size();
  auto take = [&](const fs::directory_entry& entry) {
    if (entry.is_regular_file() && is_picture(entry.path()))
      out.files.push_back({fs::relative(entry.path(), folder).string(), cls, entry.file_size()});
  };
  if (deep) {
    for (const auto& entry : fs::recursive_directory_iterator(below)) take(entry);
  } else {
    for (const auto& entry : fs::directory_iterator(below)) take(entry);
  }
  std::sort(out.files.begin() + from, out.files.end(),
            [](auto& a, auto& b) { return a.name < b.name; });
}

}  // namespace

PictureListing list_pictures(const std::string& folder, const std::string& hint) {
  PictureListing listing;
  try {
    if (!fs::is_directory(folder)) {
      const bool exists = fs::exists(folder);
      throw Error(Code::kData, exists ? "is not a folder" : "the folder is missing", folder,
                  !exists && hint.empty() ? "Check the path." : hint);
    }
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_directory()) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    for (const auto& name : names) {
      const size_t before = listing.files.size();
      add(folder, fs::path(folder) / name, listing.classes.size(), true, listing);
      if (listing.files.size() > before) listing.classes.push_back(name);
    }
    if (listing.files.empty()) {
      listing.classes = {""};
      add(folder, folder, 0, false, listing);
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(Code::kData, error.code().message(), error.path1().string());
  }
  if (listing.files.empty())
    throw Error(Code::kData, "no .jpg, .jpeg or .png files are in it", folder,
                "Images lie in one sub-folder per class.");
  return listing;
}

}  // namespace lehr::data
