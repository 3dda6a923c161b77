// The picture files below a folder, in one order everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lehr::data {

struct PictureListing {
  std::vector<std::string>
      classes;  // sub-folders that hold pictures, sorted; {""} for a flat folder
  struct File {
    std::string name;  // below the folder
    size_t cls = 0;    // into classes
    uint64_t bytes = 0;
  };
  std::vector<File> files;  // sorted by class, then name
};

// .jpg, .jpeg and .png files (in any case) of each sub-folder, however deep, or of the folder
// itself when no sub-folder holds any. Throws Error{kData} when the folder is missing (with `hint`)
// or holds none.
PictureListing list_pictures(const std::string& folder, const std::string& hint = "");

}  // namespace lehr::data
