#include "engine/export/publish.h"

#include <filesystem>

#include "engine/base/error.h"
#include "engine/base/files.h"

namespace lehr::artefact {

void publish_folder(const std::string& output,
                    const std::function<void(const std::string& folder)>& fill) {
  std::string target = output;
  while (target.size() > 1 && target.back() == '/') target.pop_back();
  if (file_exists(target))
    throw Error(Code::kUsage, "the output exists already", target,
                "name a new folder, or remove this one");
  const std::filesystem::path place(target);
  const std::string parent = place.has_parent_path() ? place.parent_path().string() : ".";
  const std::string mark = place.filename().string() + ".tmp-";
  make_folders(parent);
  // of exports that were killed
  for (const auto& name : list_folder(parent))
    if (name.starts_with(mark)) remove_tree(join_path(parent, name));
  Temporary folder(join_path(parent, mark + unique_id()));
  make_folders(folder.path());
  fill(folder.path());
  folder.rename_durably(target);
}

void write_bytes(const std::string& path, const std::string& bytes) {
  FileWriter file(path, bytes.size());
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace lehr::artefact
