// ${section.key} inside scalars: where a text has them, and what is wrong with one.
#pragma once

#include <string>
#include <vector>

namespace lehr::recipe {

struct Piece {
  std::string text;  // literal text, or the key that is referred to
  bool is_reference = false;
};

// `text` cut into literals and references; "$${" gives a literal "${". A malformed one is returned
// in `problem` (empty when all is well).
std::vector<Piece> split_references(const std::string& text, std::string& problem);

}  // namespace lehr::recipe
