#include "engine/data/listing.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <set>

#include "engine/base/error.h"
#include "engine/base/pulse.h"
#include "engine/data/picture_kind.h"

namespace lehr::data {
namespace fs = std::filesystem;
namespace {

constexpr size_t kNamed = 3;  // names of each reason

const std::set<std::string> kPictures = {".jpg", ".jpeg", ".png"};
// names under which a JPEG or PNG may lie as well, and those of formats that are not read
const std::set<std::string> kPerhaps = {
    "",     ".jpe", ".jfif", ".jfi", ".jif",  ".pjpeg", ".pjp",  ".mpo",  ".apng", ".webp",
    ".gif", ".bmp", ".dib",  ".tif", ".tiff", ".heic",  ".heif", ".avif", ".jp2",  ".j2k",
    ".jxl", ".ico", ".psd",  ".ppm", ".pgm",  ".pbm",   ".pnm",  ".qoi",  ".dds",  ".exr",
    ".tga", ".svg", ".dcm",  ".dng", ".cr2",  ".nef",   ".arw"};
const std::set<std::string> kOfSystems = {"Thumbs.db",
                                          "desktop.ini",
                                          "__MACOSX",
                                          "@eaDir",
                                          "lost+found",
                                          "$RECYCLE.BIN",
                                          "System Volume Information"};

std::string extension_of(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot == 0) return "";
  std::string extension = name.substr(dot);
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

class Walk {
 public:
  Walk(const std::string& folder, Folders folders) : folder_(folder), folders_(folders) {}

  void top() {
    above_.push_back(place_of(folder_));
    std::vector<std::string> inside = enter("", kNoClass);
    std::sort(inside.begin(), inside.end());
    for (const auto& name : inside) {
      const bool is_class = folders_ == Folders::kClasses;
      if (is_class) listing.classes.push_back(name);
      below(name, is_class ? listing.classes.size() - 1 : kNoClass);
    }
    std::sort(listing.files.begin(), listing.files.end(),
              [](auto& a, auto& b) { return a.cls != b.cls ? a.cls < b.cls : a.name < b.name; });
    for (const auto& [reason, p] : passed_over_)
      listing.passed_over.push_back(
          fmt::format("{} passed over, {} ({}{}){}", p.count, reason, fmt::join(p.names, ", "),
                      static_cast<size_t>(p.count) > p.names.size() ? ", ..." : "",
                      p.hint.empty() ? "" : ". " + p.hint));
  }

  PictureListing listing;
  int64_t loose = 0;  // pictures beside the class folders

 private:
  static constexpr size_t kNoClass = 0;
  struct PassedOver {
    int64_t count = 0;
    StringList names;
    std::string hint;
  };

  void pass_over(const std::string& reason, const std::string& name, const std::string& hint = "") {
    PassedOver& p = passed_over_[reason];
    ++p.count;
    p.hint = hint;
    // the first by name, in whatever order the file system gives them
    p.names.insert(std::upper_bound(p.names.begin(), p.names.end(), name), name);
    if (p.names.size() > kNamed) p.names.pop_back();
  }

  // All of a folder, at any depth. A link may lead anywhere but back.
  void below(const std::string& name, size_t cls) {
    const auto place = place_of(folder_ + "/" + name);
    if (std::find(above_.begin(), above_.end(), place) != above_.end())
      return pass_over("links back to a folder above them", name);
    above_.push_back(place);
    for (const auto& inside : enter(name, cls)) below(name + "/" + inside, cls);
    above_.pop_back();
  }

  static std::pair<dev_t, ino_t> place_of(const std::string& folder) {
    struct stat status;
    if (::stat(folder.c_str(), &status) == 0) return {status.st_dev, status.st_ino};
    throw fs::filesystem_error("", folder, std::error_code(errno, std::generic_category()));
  }

  // the files of one folder; returns the folders in it
  std::vector<std::string> enter(const std::string& name, size_t cls) {
    std::vector<std::string> inside;
    for (const auto& entry : fs::directory_iterator(folder_ + "/" + name)) {
      get_on();
      const std::string own = entry.path().filename().string();
      const std::string full = name.empty() ? own : name + "/" + own;
      std::error_code none;
      if (own[0] == '.')
        pass_over("hidden names", full);
      else if (kOfSystems.contains(own))
        pass_over("left behind by systems", full);
      else if (entry.is_directory(none))
        inside.push_back(own);
      else if (!entry.is_regular_file(none))
        pass_over("no plain files, or links that lead nowhere", full);
      else if (is_picture(own, full))
        take(full, cls, entry);
    }
    return inside;
  }

  bool is_picture(const std::string& own, const std::string& full) {
    const std::string extension = extension_of(own);
    if (kPictures.contains(extension)) return true;
    if (!kPerhaps.contains(extension)) {
      pass_over("no pictures by their names", full);
      return false;
    }
    const PictureKind kind = kind_of_file(folder_ + "/" + full);
    if (kind.is_read) return true;
    pass_over(*kind.name ? fmt::format("each {}", kind.name) : "no JPEG or PNG", full, kind.hint);
    return false;
  }

  void take(const std::string& full, size_t cls, const fs::directory_entry& entry) {
    const bool is_loose = folders_ == Folders::kClasses && full.find('/') == std::string::npos;
    if (!is_loose) {
      listing.files.push_back({full, cls, entry.file_size()});
      return;
    }
    ++loose;
    pass_over("pictures beside the class folders", full);
  }

  const std::string folder_;
  const Folders folders_;
  std::vector<std::pair<dev_t, ino_t>> above_;
  std::map<std::string, PassedOver> passed_over_;
};

}  // namespace

std::string lines_below(const StringList& lines) {
  return lines.empty() ? "" : fmt::format("\n  {}", fmt::join(lines, "\n  "));
}

PictureListing list_pictures(const std::string& folder, Folders folders, const std::string& hint) {
  Walk walk(folder, folders);
  try {
    if (!fs::is_directory(folder)) {
      const bool exists = fs::exists(folder);
      throw Error(Code::kData, exists ? "is not a folder" : "the folder is missing", folder,
                  !exists && hint.empty() ? "Check the path." : hint);
    }
    walk.top();
  } catch (const fs::filesystem_error& error) {
    throw Error(Code::kData, error.code().message(), error.path1().string());
  }
  PictureListing& listing = walk.listing;
  const std::string rest = lines_below(listing.passed_over);
  if (listing.files.empty() && walk.loose > 0)
    throw Error(Code::kData, fmt::format("its {} pictures lie in no class folder", walk.loose),
                folder,
                "Give each class a sub-folder: cat/1.jpg, dog/2.jpg. Predicting needs none.");
  if (listing.files.empty())
    throw Error(Code::kData, "no JPEG or PNG pictures are in it" + rest, folder,
                folders == Folders::kClasses ? "Images lie in one sub-folder per class." : "");
  if (folders == Folders::kAny) return std::move(listing);
  std::vector<bool> filled(listing.classes.size());
  for (const auto& file : listing.files) filled[file.cls] = true;
  StringList empty;
  for (size_t c = 0; c < filled.size(); ++c)
    if (!filled[c]) empty.push_back(listing.classes[c]);
  if (!empty.empty())
    throw Error(Code::kData,
                fmt::format("no JPEG or PNG pictures are in its class folder{} {}{}",
                            empty.size() == 1 ? "" : "s", fmt::join(empty, ", "), rest),
                folder, "Put some there, or remove the folder: it would be a class of nothing.");
  return std::move(listing);
}

}  // namespace lehr::data
