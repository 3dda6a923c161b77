// MANIFEST.json of an artefact: what FORMAT.md describes, written and read in one place. It names
// every file with size and SHA-256, and carries the SHA-256 of its own text. That proves integrity,
// not origin.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lehr::artefact {

constexpr int64_t kFormat = 1;
constexpr const char* kManifestName = "MANIFEST.json";

struct FileRecord {
  std::string name;  // below the artefact's folder, "/" between parts
  uint64_t bytes = 0;
  std::string sha256;
};

struct Manifest {
  std::string facts;  // JSON object: loss, classes, signature, LibTorch, origin, ...
  std::vector<FileRecord> files;
};

// Throws Error{kInternal} when `facts` is not a JSON object.
std::string to_text(const Manifest& manifest);
// Verifies the text's own SHA-256, then every field. Throws Error{kCheckpoint}; `path` is for
// messages.
Manifest parse_manifest(const std::string& text, const std::string& path);

// Names, sizes and SHA-256 of all files below `folder` but the manifest, sorted. Throws
// Error{kCheckpoint} for a link or anything else that is not a plain file or folder.
std::vector<FileRecord> records_of(const std::string& folder);
// The manifest of `folder`, once every file in it is there, has the size and the SHA-256 that it
// says, and no other file is there. Throws Error{kCheckpoint} naming the file.
Manifest verify_folder(const std::string& folder);

}  // namespace lehr::artefact
