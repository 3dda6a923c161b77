// The picture files below a folder, in one order everywhere, and a word on all that lies there
// beside them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::data {

enum class Folders {
  kClasses,  // a sub-folder per class, pictures at any depth in it
  kAny       // pictures at any depth, of no class
};

struct PictureListing {
  StringList classes;  // sub-folders, sorted; none for kAny
  struct File {
    std::string name;  // below the folder
    size_t cls = 0;    // into classes
    uint64_t bytes = 0;
  };
  std::vector<File> files;  // sorted by class, then name
  StringList passed_over;   // what else lies there: a line for each reason, with count and remedy
};

// Pictures are files named .jpg, .jpeg or .png (in any case), and JPEG and PNG files that carry the
// name of another picture format or none: of those, and only those, the first bytes are read.
// Hidden names and what systems leave behind (__MACOSX, Thumbs.db) are passed over; links are
// followed, but not back to a folder above them. Throws Error{kData} when the folder is missing
// (with `hint`) or holds no pictures; for kClasses also when a sub-folder holds none.
PictureListing list_pictures(const std::string& folder, Folders folders = Folders::kClasses,
                             const std::string& hint = "");

// For a message: each line on one of its own, below what was said.
std::string lines_below(const StringList& lines);

}  // namespace lehr::data
