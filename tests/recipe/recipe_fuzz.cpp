// libFuzzer target: any bytes are either refused with an Error of the user's kind, or make a recipe
// that reads back from its resolved form with the same hash. Lines that start with `--set ` are
// overrides.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/recipe/recipe.h"
#include "tests/recipe/sample.h"

using lehr::recipe::Recipe;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto sections = lehr::recipe::sample::sections();
  std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  while (text.starts_with("--set ")) {
    size_t end = std::min(text.find('\n'), text.size());
    overrides.push_back(text.substr(6, end - 6));
    text.erase(0, end + (end < text.size()));
  }
  std::string resolved, hash;
  try {
    Recipe recipe = Recipe::parse(text, "fuzz/r.yaml", overrides, sections);
    resolved = recipe.resolved();
    hash = recipe.hash();
  } catch (const lehr::Error& error) {
    if (error.code() == lehr::Code::kRecipe) return 0;
    std::fprintf(stderr, "not a recipe error: %s\n", error.what());
    std::abort();
  }
  // a second reading must succeed: an error here is ours
  if (Recipe::parse(resolved, "fuzz/r.yaml", {}, sections).hash() != hash) std::abort();
  return 0;
}
