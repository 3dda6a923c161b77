// Which key was meant: synonyms that fields declare, words of other systems, near spellings.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/base/fields.h"

namespace lehr::recipe {

class Names {
 public:
  explicit Names(const std::vector<Section>& sections);

  // Hint for a key that nobody declared: "did you mean optimizer.lr?", or what the section has.
  // `dotted` is the key below its section ("augment.flipp").
  std::string hint(const std::string& section, const std::string& dotted) const;
  // The same for a top-level key, which may be a section or a field out of its section.
  std::string top_level_hint(const std::string& key) const;
  // "since 0.2: ..." of a field that an earlier release had, else "".
  std::string gone(const std::string& section, const std::string& dotted) const;

 private:
  struct Known {
    std::string section, name;  // name may be dotted
    std::vector<std::string> synonyms, was;
    std::string key() const { return section + "." + name; }
  };
  using Found = std::vector<std::string>;
  Found exact(const std::string& section, const std::string& dotted) const;
  Found foreign(const std::string& word) const;
  bool has(const std::string& key) const;

  std::vector<std::string> sections_;
  std::vector<Known> known_;
  std::map<std::string, std::string> gone_;  // "section.name" to "since ..."
};

}  // namespace lehr::recipe
