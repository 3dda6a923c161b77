// The zip archive of a model.pt, read from memory and distrusted: stored members only, every length
// checked, before LibTorch's own reader, which is not memory-safe on damaged files, sees a byte.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lehr::artefact {

struct Member {
  std::string name;  // below the archive's top folder: "data.pkl", "code/__torch__.py", "data/3"
  std::string_view content;
};

// Throws Error{kCheckpoint}, with `path` for the message, on anything but a zip archive that begins
// at byte 0, ends with its directory, and whose members are stored, lie one after the other without
// overlap, share one top folder, and have plain names of which no two are alike.
std::vector<Member> read_archive(std::string_view bytes, const std::string& path);

}  // namespace lehr::artefact
