// A recipe file and the rooms' declared fields as one checked, printable value.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/fields.h"

namespace lehr::recipe {

// Merges sections of the same name (fields are concatenated; texts: the first non-empty one).
std::vector<Section> merge(const std::vector<Section>& sections);

// A field that is not the same in two recipes; "(none)" for one that is not in use.
struct Difference {
  std::string key, before, after;
  bool exact = true;     // Field::exact
  bool is_path = false;  // relative ones are compared from their recipe's folder
  std::string text() const { return key + ": " + before + " -> " + after; }
};

class Recipe : public FieldSource {
 public:
  // Reads `path` with everything it extends, applies overrides ("optimizer.lr=3e-4"), resolves
  // ${section.key}, checks every field. All mistakes of a file are in one Error{kRecipe}, one per
  // line "file:line:column: section.key: what; hint".
  static Recipe load(const std::string& path, const std::vector<std::string>& overrides,
                     const std::vector<Section>& sections);
  // The same from text (a resolved recipe inside a checkpoint or artefact), which may not extend
  // anything; `origin` names it in errors. `folder` is where its relative paths start: the folder()
  // of the recipe that was resolved; without it, the folder of `origin`.
  static Recipe parse(const std::string& text, const std::string& origin,
                      const std::vector<std::string>& overrides,
                      const std::vector<Section>& sections,
                      const std::optional<std::string>& folder = std::nullopt);
  // The same of a recipe that Lehr itself stored, perhaps another release: fields that were renamed
  // are found, those that are gone are in left_out(), and what is unknown is of a newer release.
  // Error{kCheckpoint}.
  static Recipe parse_stored(const std::string& text, const std::string& origin,
                             const std::vector<std::string>& overrides,
                             const std::vector<Section>& sections,
                             const std::optional<std::string>& folder = std::nullopt);

  const StringList& left_out() const;  // of parse_stored: "section.name (since ...)"
  const std::string& path() const;     // as given
  std::string stem() const;            // "fashion_mnist_cnn"
  const std::string& folder() const;   // relative paths in resolved() start here
  std::string resolved() const;  // YAML of every active field, comments with units; re-readable
  std::string hash() const;      // SHA-256 of resolved()
  // "file:line:column" of "section.key"; of one that is not written, of its section or the file.
  std::string where(const std::string& key) const;
  // `error` of a room that knows the key alone, with the place where the recipe says it.
  Error placed(const Error& error) const;
  bool was_set(const std::string& key) const;  // in a file or an override
  // Of an active field. Paths open from the working directory: a relative one was joined with the
  // folder of the file that it is written in; one equal to its default stays as it is.
  const Value& value(const std::string& key) const;
  // Fields that are others in `later`.
  std::vector<Difference> differences(const Recipe& later) const;
  // What the path fields in use of a section hold, as value() does: those that are not empty.
  StringList paths(const std::string& section) const;

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
