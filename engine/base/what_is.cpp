#include "engine/base/what_is.h"

#include <fmt/format.h>

namespace lehr {
namespace {

using namespace std::string_view_literals;

struct Magic {
  size_t at;
  std::string_view bytes;
  FileKind kind;
};
constexpr const char* kUnpack = "Unpack it first.";
constexpr const char* kAsCsv = "Write it as CSV, or its text as a plain file.";
constexpr const char* kAsSafetensors = "Weights are read as safetensors: save them so elsewhere.";
// the first that holds counts: UTF-32's mark begins with UTF-16's
constexpr Magic kMagics[] = {
    {0,
     "version https://git-lfs"sv,
     {"a Git LFS pointer, not the file itself", "Run `git lfs pull` there, or download the file."}},
    {0, "\xff\xfe\0\0"sv, {"text in UTF-32", "Convert it: iconv -f UTF-32 -t UTF-8 FILE > NEW"}},
    {0, "\0\0\xfe\xff"sv, {"text in UTF-32", "Convert it: iconv -f UTF-32 -t UTF-8 FILE > NEW"}},
    {0, "\xff\xfe"sv, {"text in UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"}},
    {0, "\xfe\xff"sv, {"text in UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"}},
    {0, "\x1f\x8b"sv, {"a gzip file", kUnpack}},
    {0, "\x28\xb5\x2f\xfd"sv, {"a zstd file", "Unpack it (zstd -d), or pack it with gzip."}},
    {0,
     "\xfd"sv
     "7zXZ\0"sv,
     {"an xz file", "Unpack it (xz -d), or pack it with gzip."}},
    {0, "\x04\x22\x4d\x18"sv, {"an lz4 file", "Unpack it (lz4 -d), or pack it with gzip."}},
    {4, "1AY&SY"sv, {"a bzip2 file", "Unpack it (bzip2 -d), or pack it with gzip."}},
    {0,
     "PK\x03\x04"sv,
     {"a zip archive",
      "Unpack it first. Excel's tables are such archives: save them as CSV; and PyTorch's pickled "
      "weights: save them as safetensors."}},
    {0, "7z\xbc\xaf\x27\x1c"sv, {"a 7z archive", kUnpack}},
    {0, "Rar!\x1a\x07"sv, {"a RAR archive", kUnpack}},
    {257, "ustar"sv, {"a tar archive", kUnpack}},
    {0, "PAR1"sv, {"a Parquet file", kAsCsv}},
    {0, "ARROW1"sv, {"an Arrow file", kAsCsv}},
    {0, "Obj\x01"sv, {"an Avro file", kAsCsv}},
    {0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv, {"an old Office file", kAsCsv}},
    {0, "SQLite format 3\0"sv, {"an SQLite database", kAsCsv}},
    {0, "%PDF-"sv, {"a PDF document", "Take its text out first (pdftotext)."}},
    {0, "GGUF"sv, {"a GGUF file", kAsSafetensors}},
    {0, "\x89HDF\r\n\x1a\n"sv, {"an HDF5 file", kAsSafetensors}},
    {0, "\x80\x02"sv, {"a pickle", kAsSafetensors}},
    {0, "\x80\x03"sv, {"a pickle", kAsSafetensors}},
    {0, "\x80\x04"sv, {"a pickle", kAsSafetensors}},
    {0, "\x80\x05"sv, {"a pickle", kAsSafetensors}},
    {0, "LEHRTOK\n"sv, {"a token shard", "data.source: tokens reads it."}}};

}  // namespace

const FileKind* what_is(std::string_view head) {
  for (const Magic& magic : kMagics)
    if (head.size() > magic.at && head.substr(magic.at).starts_with(magic.bytes))
      return &magic.kind;
  return nullptr;
}

std::string_view plain_text(std::string_view content, const std::string& path, Code code) {
  if (const FileKind* kind = what_is(content.substr(0, kHeadBytes)))
    throw Error(code, fmt::format("is {}", kind->name), path, kind->remedy);
  return content.substr(content.starts_with("\xef\xbb\xbf") ? 3 : 0);
}

}  // namespace lehr
