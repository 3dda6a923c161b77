// Documents within a text file: what stands between separators, and which of them are held out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/data/bytes.h"

namespace lehr::data {

inline std::string_view text_of(const Bytes& file) {
  return {reinterpret_cast<const char*>(file.begin()), file.size};
}

// The texts between separators, empty ones left out; all of the text where the separator is "".
std::vector<std::string_view> split_documents(std::string_view text, const std::string& separator);

// What held_out() takes for a document: a hash of its text, so that documents of the same text are
// on the same side, wherever they stand.
uint64_t document_id(std::string_view document);

}  // namespace lehr::data
