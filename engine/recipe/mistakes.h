// Where recipe text came from, and the list of everything that is wrong with it: a user sees all
// mistakes of all files in one message, sorted as the files were read.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace lehr::recipe {

// A file, one override of the command line, or the declared defaults.
struct Source {
  std::string name;    // as shown in messages
  std::string folder;  // relative paths written here start from it; "" is the working directory
  int order = 0;       // messages are sorted by it
  bool has_lines = true;
};
using SourcePtr = std::shared_ptr<const Source>;

struct Mark {
  SourcePtr source;
  int line = 0, column = 0;  // 1-based; 0: the source as a whole
  std::string text() const;  // "file:line:column"
};

class Mistakes {
 public:
  // One line "mark: key: what; hint"; `key` ("section.name") and `hint` may be empty.
  void add(const Mark& mark, const std::string& key, const std::string& what,
           const std::string& hint = "");
  // True once enough are held: further ones are only counted, so nobody need look for a hint.
  bool full() const { return lines_.size() >= kShown; }
  bool empty() const { return lines_.empty(); }
  // Throws one Error{kRecipe} with a line for each, when there are any.
  void throw_if_any() const;

 private:
  static constexpr size_t kShown = 50;
  struct Line {
    int order, line, column;
    std::string text;
  };
  std::vector<Line> lines_;
  size_t dropped_ = 0;
};

// `text` as it may stand in a message: control characters escaped, cut after 60 bytes.
std::string shown(const std::string& text);

}  // namespace lehr::recipe
