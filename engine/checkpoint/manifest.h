// MANIFEST.json as a value: what FORMAT.md describes, written and read in one place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint.h"

namespace lehr::checkpoint {

constexpr int64_t kFormat = 1;
constexpr const char* kManifestName = "MANIFEST.json";

struct FileRecord {
  std::string name;   // without folders
  std::string shard;  // empty: a text
  uint64_t bytes = 0;
  uint64_t header_bytes = 0;  // of a shard: its length prefix and header
  std::string xxh3;           // of a text: all of it; of a shard: the header
};

// A tensor or some of its rows: all dimensions but the first are whole.
struct SliceRecord {
  std::string name, dtype;
  std::vector<int64_t> shape, offset, extent;
  std::string file, xxh3;
  bool is_whole() const { return extent == shape; }
};

struct Manifest {
  int64_t step = 0, samples = 0;
  std::string facts;  // a JSON object
  std::vector<FileRecord> files;
  std::vector<SliceRecord> slices;
  std::optional<Monitor> monitor() const;  // of the facts
};

// Throws Error{kInternal} when `facts` is not a JSON object.
std::string to_text(const Manifest& manifest);
// Verifies the text's own SHA-256, then every field. Throws Error{kCheckpoint}; `path` is for
// messages. `all_rows`: every row of every tensor must be there, once; not so in one process' part.
Manifest parse_manifest(const std::string& text, const std::string& path, bool all_rows = true);

}  // namespace lehr::checkpoint
