#include "engine/base/error.h"

#include <algorithm>
#include <numeric>

namespace lehr {

static std::string compose(const std::string& what, const std::string& where,
                           const std::string& hint) {
  std::string text = where.empty() ? what : where + ": " + what;
  if (!hint.empty()) text += "\n  " + hint;
  return text;
}

Error::Error(Code code, std::string what, std::string where, std::string hint)
    : std::runtime_error(compose(what, where, hint)),
      code_(code),
      message_(std::move(what)),
      where_(std::move(where)),
      hint_(std::move(hint)) {}

// optimal string alignment: a transposition counts as one edit
static size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::string nearest(const std::string& wrong, const std::vector<std::string>& known) {
  if (wrong.size() > 64) return "";
  std::string best;
  size_t best_distance = wrong.size() / 2 + 1;
  for (const auto& name : known) {
    if (name.size() > 128) continue;
    size_t distance = edit_distance(wrong, name);
    if (distance < best_distance) best_distance = distance, best = name;
  }
  return best;
}

}  // namespace lehr
