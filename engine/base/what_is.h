// What a file is by its first bytes, so that a reader of something else names the cause and the
// remedy instead of damage.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "engine/base/error.h"

namespace lehr {

struct FileKind {
  const char* name;    // "a zstd file"
  const char* remedy;  // what to do where text, a table or weights were wanted
};
// `head`: how the file begins, kHeadBytes of it where it has as many. nullptr: text, or nothing
// that is known here. Pictures are not among it.
inline constexpr size_t kHeadBytes = 512;
const FileKind* what_is(std::string_view head);

// The text of a file of text: without a byte order mark. Throws Error{code} where it is one of the
// kinds above (UTF-16 among them), naming `path`.
std::string_view plain_text(std::string_view content, const std::string& path,
                            Code code = Code::kData);

}  // namespace lehr
