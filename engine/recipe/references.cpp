#include "engine/recipe/references.h"

#include <fmt/format.h>

#include <utility>

#include "engine/recipe/mistakes.h"

namespace lehr::recipe {

std::vector<Piece> split_references(const std::string& text, std::string& problem) {
  std::vector<Piece> pieces;
  std::string literal;
  auto flush = [&] {
    if (!literal.empty()) pieces.push_back({std::exchange(literal, ""), false});
  };
  for (size_t at = 0; at < text.size();) {
    if (text.compare(at, 3, "$${") == 0) {
      literal += "${";
      at += 3;
    } else if (text.compare(at, 2, "${") == 0) {
      size_t close = text.find('}', at);
      if (close == std::string::npos) {
        problem = fmt::format("'{}' has no closing brace", shown(text.substr(at)));
        return {};
      }
      std::string key = text.substr(at + 2, close - at - 2);
      bool good = key.find('.') != std::string::npos && key.size() <= 200;
      for (char c : key) {
        good &= c == '.' || c == '_' || c == '-' || (c >= '0' && c <= '9') ||
                ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
      }
      if (!good) {
        problem = fmt::format("'${{{}}}' is not a reference", shown(key));
        return {};
      }
      flush();
      pieces.push_back({key, true});
      at = close + 1;
    } else {
      literal += text[at++];
    }
  }
  flush();
  return pieces;
}

}  // namespace lehr::recipe
