// Recipe text from a file that may be anything: a folder, a device, a pipe, a gigabyte, bytes that
// are no text. Only what passes here reaches libyaml.
#pragma once

#include <optional>
#include <string>

#include "engine/recipe/mistakes.h"

namespace lehr::recipe {

constexpr size_t kMaxBytes = 1 << 20;

// The bytes of a regular file of at most kMaxBytes, never blocking on anything else. nullopt after
// a mistake at `blame` (the file itself, or the line that names it) was added.
std::optional<std::string> read_text(const std::string& path, const Mark& blame,
                                     Mistakes& mistakes);

// True when `text` is UTF-8 of characters that YAML allows, without %TAG lines; else adds the first
// mistake with its line and column.
bool check_text(const std::string& text, const SourcePtr& source, Mistakes& mistakes);

}  // namespace lehr::recipe
