#include "engine/export/scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <map>
#include <vector>

#include "engine/base/error.h"
#include "engine/export/archive.h"
#include "engine/export/operators.h"
#include "engine/export/pickle.h"

namespace lehr::artefact {
namespace {

template <size_t n>
bool is_one_of(std::string_view word, const std::array<const char*, n>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

struct Token {
  enum Kind { kName, kNumber, kString, kSign, kEnd } kind = kEnd;
  std::string_view text;
  int line = 0;
};

bool starts_name(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)); }
bool in_name(char c) { return starts_name(c) || is_digit(c); }

// Cuts source exactly as LibTorch's lexer does; what the two could read differently (comments, long
// strings, continued lines, numbers run into names) is refused, since LibTorch's printer writes
// none.
class Lexer {
 public:
  Lexer(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  std::vector<Token> tokens() {
    std::vector<Token> out;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      const size_t begin = at_;
      if (c == '\n') ++line_;
      if (c == ' ' || c == '\n') {
        ++at_;
      } else if (starts_name(c)) {
        while (at_ < text_.size() && in_name(text_[at_])) ++at_;
        if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\''))
          stop("a marked string");
        out.push_back({Token::kName, text_.substr(begin, at_ - begin), line_});
      } else if (is_digit(c)) {
        number();
        out.push_back({Token::kNumber, text_.substr(begin, at_ - begin), line_});
      } else if (c == '"' || c == '\'') {
        string(c);
        out.push_back({Token::kString, text_.substr(begin, at_ - begin), line_});
      } else if (std::strchr("()[]{}.,:=+-*/%<>!&|^~", c) && c != '\0') {
        ++at_;
        if (c == '-' && at_ < text_.size() && text_[at_] == '>') ++at_;
        if ((c == '=' || c == '!' || c == '<' || c == '>') && at_ < text_.size() &&
            text_[at_] == '=')
          ++at_;
        out.push_back({Token::kSign, text_.substr(begin, at_ - begin), line_});
      } else {
        stop(fmt::format("the byte 0x{:02x}", static_cast<unsigned char>(c)));
      }
    }
    out.push_back({Token::kEnd, "", line_});
    return out;
  }

 private:
  [[noreturn]] void stop(const std::string& what) {
    refuse("its source holds " + what + ", which Lehr never writes",
           fmt::format("{}:{}", where_, line_));
  }
  void number() {
    auto digits = [&] {
      while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    };
    digits();
    if (at_ < text_.size() && text_[at_] == '.') ++at_, digits();
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      digits();
    }
    if (at_ < text_.size() && (in_name(text_[at_]) || text_[at_] == '.'))
      stop("a number run into a name");
  }
  void string(char quote) {
    if (text_.substr(at_, 3) == std::string(3, quote)) stop("a long string");
    for (++at_;; ++at_) {
      if (at_ >= text_.size() || text_[at_] == '\n') stop("a string without end");
      if (text_[at_] == quote) break;
      if (text_[at_] == '\\' && ++at_ >= text_.size()) stop("a string without end");
      if (at_ < text_.size() && text_[at_] == '\n') stop("a continued string");
    }
    ++at_;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  int line_ = 1;
};

// Methods by these names, and by names that begin with lehr_, are the wrapper's and the models'
// own.
constexpr std::array kMethods = {"forward", "preprocess", "postprocess", "generate"};
constexpr std::array kKeywords = {"return", "in", "if", "elif", "else", "not", "and", "or", "is"};
constexpr std::array kOutlawed = {"import",   "from",  "while",   "with",       "lambda", "global",
                                  "nonlocal", "try",   "except",  "del",        "async",  "await",
                                  "yield",    "as",    "finally", "raise",      "assert", "exec",
                                  "eval",     "print", "hasattr", "isinstance", "fork"};
// names that compile to something when called; as words for types they also stand in annotations
constexpr std::array kCallables = {"annotate", "range", "getattr"};
constexpr std::array kTypes = {"int", "float", "bool", "str"};
constexpr std::array kNamespaces = {"torch", "ops", "CONSTANTS", "__torch__"};
constexpr std::array kDunders = {"__torch__", "__parameters__", "__buffers__", "__annotations__"};

bool is_method(std::string_view name) {
  return is_one_of(name, kMethods) || name.starts_with("lehr_");
}

class SourceScan {
 public:
  SourceScan(std::string_view text, const std::string& where)
      : where_(where), tokens_(Lexer(text, where).tokens()) {}

  void run() {
    for (at_ = 0; tokens_[at_].kind != Token::kEnd; ++at_) {
      const Token& token = tokens_[at_];
      if (token.kind == Token::kName) {
        name();
      } else if (token.text == "(") {
        // only names are called, so that no call hides behind an expression
        const Token before = peek(-1);
        if (before.text == ")" || before.text == "]" || before.text == "}" ||
            before.kind == Token::kString || before.kind == Token::kNumber)
          stop("the call of an expression");
        brackets_.push_back('(');
      } else if (token.text == "[") {
        const Token before = peek(-1);
        brackets_.push_back(
            before.kind == Token::kName && !is_one_of(before.text, kKeywords) ? 's' : '[');
      } else if (token.text == "{") {
        brackets_.push_back('{');
      } else if (token.text == ")" || token.text == "]" || token.text == "}") {
        if (!brackets_.empty()) brackets_.pop_back();
      }
    }
  }

 private:
  Token peek(int distance) const {
    const int64_t at = static_cast<int64_t>(at_) + distance;
    return at >= 0 && at < static_cast<int64_t>(tokens_.size()) ? tokens_[at] : Token{};
  }
  [[noreturn]] void stop(const std::string& what) const {
    refuse(fmt::format("its source holds {}, which is not allowed", what),
           fmt::format("{}:{}", where_, tokens_[at_].line));
  }

  void name() {
    const std::string_view word = tokens_[at_].text;
    const bool is_called = peek(1).text == "(";
    if (peek(-1).text == ".") return attribute(word, is_called);
    if (is_one_of(word, kOutlawed)) stop(fmt::format("`{}`", word));
    if (word.starts_with("__") && !is_one_of(word, kDunders)) stop(fmt::format("`{}`", word));
    if (is_one_of(word, kNamespaces)) {
      if (peek(1).text != ".") stop(fmt::format("`{}` as a value", word));
      return;
    }
    if (word == "for") return loop();
    if (word == "def") {
      if (!is_method(peek(1).text)) stop(fmt::format("a method `{}`", peek(1).text));
      return;
    }
    if (word == "class") {
      if (peek(2).text != "(" || peek(3).text != "Module" || peek(4).text != ")")
        stop(fmt::format("a class `{}` that is no Module", peek(1).text));
      return;
    }
    if (is_called) {
      const bool declares = peek(-1).text == "def" || peek(-1).text == "class";
      if (!declares && !is_one_of(word, kCallables) && !is_one_of(word, kTypes) &&
          !is_one_of(word, kKeywords))
        stop(fmt::format("the call `{}(...)`", word));
      return;
    }
    // nothing may be put in the place of a name that is allowed to be called
    if (is_one_of(word, kCallables)) stop(fmt::format("`{}` as a value", word));
    if (is_one_of(word, kTypes)) {
      const std::string_view before = peek(-1).text, after = peek(1).text;
      const bool in_subscript = !brackets_.empty() && brackets_.back() == 's';
      const bool on_line = peek(-1).line == tokens_[at_].line;
      const bool is_annotation =
          (on_line && (before == ":" || before == "->")) ||
          (in_subscript && (before == "[" || before == ",") && (after == "]" || after == ",")) ||
          (before == "(" && peek(-2).text == "annotate" && after == ",");
      if (!is_annotation) stop(fmt::format("`{}` as a value", word));
    }
  }

  // a word after a dot: the chain of names that it ends decides
  void attribute(std::string_view word, bool is_called) {
    size_t first = at_;
    while (first >= 2 && tokens_[first - 1].text == "." && tokens_[first - 2].kind == Token::kName)
      first -= 2;
    const bool is_chain = first == 0 || tokens_[first - 1].text != ".";
    const std::string_view root = tokens_[first].text;
    const size_t depth = (at_ - first) / 2;
    if (is_chain && root == "torch") {
      if (depth != 1 || !allowed_aten().count(std::string(word)))
        stop(fmt::format("`torch.{}`", word));
    } else if (is_chain && root == "ops") {
      if (depth == 1 && word != "prim") stop(fmt::format("`ops.{}`", word));
      if (depth > 2 || (depth == 2 && !allowed_prim().count(std::string(word))))
        stop(fmt::format("`ops.prim.{}`", word));
    } else if (is_chain && root == "__torch__") {
      if (is_called) stop("the call of a class");
      if (word == "classes") stop("a class of a library");
    } else if (is_called && !is_method(word)) {
      stop(fmt::format("the call `.{}(...)`", word));
    } else if (word.starts_with("__")) {
      stop(fmt::format("`.{}`", word));
    }
  }

  // `for x in range(torch.len(...))` and no other: it ends
  void loop() {
    static constexpr std::array kShape = {"in", "range", "(", "torch", ".", "len", "("};
    for (size_t i = 0; i < kShape.size(); ++i)
      if (peek(static_cast<int>(i) + 2).text != kShape[i])
        stop("a loop that is not over the length of a list");
  }

  const std::string& where_;
  std::vector<Token> tokens_;
  std::vector<char> brackets_;  // open ones; 's' is the bracket of a subscript
  size_t at_ = 0;
};

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

}  // namespace

void refuse(const std::string& why, const std::string& where) {
  throw Error(Code::kCheckpoint, why, where,
              "nothing of the file was run; use artefacts of people you trust, or export again");
}

void scan_source(std::string_view text, const std::string& where) { SourceScan(text, where).run(); }

void scan_archive(std::string_view bytes, const std::string& path) {
  const std::vector<Member> members = read_archive(bytes, path);
  // a pickle X.pkl has its storages in X/
  std::map<std::string, StorageBytes> storages = {{"data", {}}, {"constants", {}}};
  for (const auto& [name, content] : members) {
    const size_t slash = name.find('/');
    if (slash == std::string::npos || !all_digits(name.substr(slash + 1))) continue;
    if (auto found = storages.find(name.substr(0, slash)); found != storages.end())
      found->second[name.substr(slash + 1)] = content.size();
  }
  bool has_data = false;
  for (const auto& [name, content] : members) {
    const std::string where = path + ": " + name;
    if (name.starts_with("code/") && name.ends_with(".py")) {
      scan_source(content, where);
    } else if (name == "data.pkl" || name == "constants.pkl") {
      scan_pickle(content, storages[name.substr(0, name.size() - 4)], where);
      has_data = has_data || name == "data.pkl";
    } else if (!(name.starts_with("data/") && all_digits(name.substr(5))) &&
               !(name.starts_with("constants/") && all_digits(name.substr(10))) &&
               name != "version" && name != ".data/version" && name != "byteorder" &&
               name != ".data/serialization_id") {
      refuse("it holds a member that Lehr never writes", where);
    }
  }
  if (!has_data) refuse("it holds no data.pkl", path);
}

bool operator_allowed(const std::string& kind) {
  if (kind.starts_with("aten::")) return allowed_aten().count(kind.substr(6)) > 0;
  if (kind.starts_with("prim::")) return allowed_prim().count(kind.substr(6)) > 0;
  return false;
}

void scan_operators(const std::set<std::string>& kinds, const std::string& where) {
  for (const auto& kind : kinds)
    if (!operator_allowed(kind))
      refuse(fmt::format("it uses the operator {}, which is not allowed", kind), where);
}

}  // namespace lehr::artefact
