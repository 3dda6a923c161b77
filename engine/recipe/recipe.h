// A recipe file and the rooms' declared fields as one checked, printable value.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::recipe {

// Merges sections of the same name (fields are concatenated; texts: the first non-empty one).
std::vector<Section> merge(const std::vector<Section>& sections);

class Recipe : public FieldSource {
 public:
  // Reads `path` with everything it extends, applies overrides ("optimizer.lr=3e-4"), resolves
  // ${section.key}, checks every field. All mistakes of a file are in one Error{kRecipe}, one per line
  // "file:line:column: what  hint".
  static Recipe load(const std::string& path, const std::vector<std::string>& overrides,
                     const std::vector<Section>& sections);
  // The same from text (a resolved recipe inside a checkpoint or artefact); `origin` names it in errors.
  static Recipe parse(const std::string& text, const std::string& origin,
                      const std::vector<std::string>& overrides, const std::vector<Section>& sections);

  const std::string& path() const;         // as given
  std::string stem() const;                // "fashion_mnist_cnn"
  const std::string& folder() const;       // paths in path fields are relative to it
  std::string resolved() const;            // YAML of every active field, comments with units; re-readable
  std::string hash() const;                // SHA-256 of resolved()
  std::string where(const std::string& key) const;  // "file:line:column" of "section.key", or "default"
  bool was_set(const std::string& key) const;       // in a file or an override
  const Value& value(const std::string& key) const; // of an active field
  // Fields that differ between this and another resolved recipe: "optimizer.lr: 0.1 -> 0.2".
  // `exact_only`: only those whose change breaks exactness (Field::exact).
  std::vector<std::string> differences(const Recipe& other, bool exact_only) const;

 protected:
  void fill(const Section& section, void* object) const override;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// recipes/REFERENCE.md and the JSON Schema (draft 2020-12) of files as written.
std::string reference(const std::vector<Section>& sections);
std::string json_schema(const std::vector<Section>& sections);

}  // namespace lehr::recipe
