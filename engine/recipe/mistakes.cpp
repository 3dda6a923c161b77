#include "engine/recipe/mistakes.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "engine/base/error.h"

namespace lehr::recipe {

std::string Mark::text() const {
  if (!source) return "default";
  if (line == 0 || !source->has_lines) return source->name;
  return fmt::format("{}:{}:{}", source->name, line, column);
}

void Mistakes::add(const Mark& mark, const std::string& key, const std::string& what,
                   const std::string& hint) {
  if (full()) {
    ++dropped_;
    return;
  }
  std::string text = mark.text() + ": ";
  // an override already names its key
  if (!key.empty() && text != "--set " + key + ": ") text += key + ": ";
  text += what;
  if (!hint.empty()) text += "; " + hint;
  int order = mark.source ? mark.source->order : 0;
  lines_.push_back({order, mark.line, mark.column, std::move(text)});
}

void Mistakes::throw_if_any() const {
  if (lines_.empty()) return;
  auto sorted = lines_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Line& a, const Line& b) {
    return std::tie(a.order, a.line, a.column) < std::tie(b.order, b.line, b.column);
  });
  std::string all;
  for (const auto& line : sorted) all += (all.empty() ? "" : "\n") + line.text;
  if (dropped_ > 0) all += fmt::format("\nand {} more mistakes", dropped_);
  throw Error(Code::kRecipe, all);
}

std::string shown(const std::string& text) {
  constexpr size_t kLimit = 60;
  size_t end = std::min(text.size(), kLimit);
  // never cut inside a UTF-8 sequence
  while (end < text.size() && end > 0 && (text[end] & 0xC0) == 0x80) --end;
  std::string out;
  for (unsigned char c : text.substr(0, end)) {
    if (c == '\n') {
      out += "\\n";
    } else if (c < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  return end < text.size() ? out + "..." : out;
}

}  // namespace lehr::recipe
