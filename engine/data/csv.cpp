#include "engine/data/csv.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "engine/base/error.h"

namespace lehr::data {
namespace {

// offset of the first byte that is no UTF-8 text (NUL counts as none), or size
size_t first_bad_byte(const uint8_t* p, size_t size) {
  for (size_t i = 0; i < size;) {
    const uint8_t b = p[i];
    if (b == 0) return i;
    const int length = b < 0x80                ? 1
                       : b >= 0xc2 && b < 0xe0 ? 2
                       : b >= 0xe0 && b < 0xf0 ? 3
                       : b >= 0xf0 && b < 0xf5 ? 4
                                               : 0;
    if (length == 0 || size - i < static_cast<size_t>(length)) return i;
    for (int k = 1; k < length; ++k)
      if ((p[i + k] & 0xc0) != 0x80) return i;
    // overlong forms, surrogates, beyond U+10FFFF
    if ((b == 0xe0 && p[i + 1] < 0xa0) || (b == 0xed && p[i + 1] > 0x9f) ||
        (b == 0xf0 && p[i + 1] < 0x90) || (b == 0xf4 && p[i + 1] > 0x8f))
      return i;
    i += length;
  }
  return size;
}

bool is_missing(std::string_view cell) {
  static constexpr std::string_view words[] = {"",    "NA",  "N/A",  "NaN",
                                               "nan", "NAN", "null", "NULL"};
  return std::find(std::begin(words), std::end(words), cell) != std::end(words);
}

std::string_view trim(std::string_view cell) {
  while (!cell.empty() && (cell.front() == ' ' || cell.front() == '\t')) cell.remove_prefix(1);
  while (!cell.empty() && (cell.back() == ' ' || cell.back() == '\t')) cell.remove_suffix(1);
  return cell;
}

// NaN: missing; nullopt: no finite number
std::optional<double> parse_number(std::string_view cell) {
  cell = trim(cell);
  if (is_missing(cell)) return std::numeric_limits<double>::quiet_NaN();
  if (cell.front() == '+' && cell.substr(0, 2) != "+-") cell.remove_prefix(1);
  double value = 0;
  auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (end != cell.data() + cell.size()) return std::nullopt;
  // too near to zero is zero; too large stays an error
  if (error == std::errc::result_out_of_range)
    value = std::strtod(std::string(cell).c_str(), nullptr);
  else if (error != std::errc())
    return std::nullopt;
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

// a cell for a message: one short line
std::string quoted(std::string_view cell) {
  std::string text(cell.substr(0, 40));
  std::replace(text.begin(), text.end(), '\n', ' ');
  return "'" + text + (cell.size() > 40 ? "...'" : "'");
}

}  // namespace

size_t column_index(const StringList& names, const std::string& path, const std::string& name,
                    const std::string& field) {
  auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return found - names.begin();
  const std::string near = nearest(name, names);
  std::string hint = fmt::format("Did you mean '{}'?", near);
  if (names.size() == 1)
    hint = fmt::format("It has one column, {}: is data.delimiter what separates its fields?",
                       quoted(names[0]));
  else if (near.empty())
    hint = fmt::format("Its columns are {}.", fmt::join(names, ", "));
  throw Error(Code::kRecipe, fmt::format("{} has no column '{}'", path, name), field, hint);
}

CsvReader::CsvReader(const Bytes& file, char delimiter)
    : file_(file),
      delimiter_(delimiter),
      at_(reinterpret_cast<const char*>(file.begin())),
      end_(reinterpret_cast<const char*>(file.end())) {
  const size_t bad = first_bad_byte(file.begin(), file.size);
  if (bad < file.size)
    bad_byte(file.path, bad, fmt::format("0x{:02x} is no UTF-8 text", file.begin()[bad]),
             "Is it a CSV file? If so, convert it with: iconv -f latin1 -t utf-8");
  if (std::string_view(at_, end_ - at_).substr(0, 3) == "\xef\xbb\xbf") at_ += 3;
  std::vector<std::string_view> cells;
  if (!read_row(cells))
    throw Error(Code::kData, "the table is empty", file.path,
                "It begins with a line of column names.");
  for (size_t i = 0; i < cells.size(); ++i) {
    std::string name(trim(cells[i]));
    if (name.empty())
      name = fmt::format("column_{}", i + 1);  // row names of R and pandas have none
    if (std::find(names_.begin(), names_.end(), name) != names_.end())
      throw Error(Code::kData, fmt::format("two columns are called '{}'", name), where());
    names_.push_back(std::move(name));
  }
}

std::string CsvReader::where() const { return fmt::format("{}:{}", file_.path, line_); }

bool CsvReader::read_row(std::vector<std::string_view>& cells) {
  cells.clear();
  // lines without anything are passed over; in a table of one column they are a missing value
  while (names_.size() != 1 && at_ < end_ &&
         (*at_ == '\n' || (*at_ == '\r' && at_ + 1 < end_ && at_[1] == '\n'))) {
    at_ += *at_ == '\r' ? 2 : 1;
    ++next_line_;
  }
  line_ = next_line_;
  if (at_ >= end_) return false;
  size_t used = 0;  // of unquoted_
  for (;;) {
    if (at_ < end_ && *at_ == '"') {
      const char* from = ++at_;
      bool doubled = false;
      for (;; ++at_) {
        if (at_ >= end_)
          throw Error(Code::kData, "a quote that opens in this row is never closed", where());
        if (*at_ == '\n') ++next_line_;
        if (*at_ != '"') continue;
        if (at_ + 1 < end_ && at_[1] == '"') {
          doubled = true;
          ++at_;
        } else {
          break;
        }
      }
      std::string_view cell(from, at_ - from);
      ++at_;
      if (doubled) {
        if (used == unquoted_.size()) unquoted_.emplace_back();
        std::string& text = unquoted_[used++];
        text.clear();
        for (size_t i = 0; i < cell.size(); ++i) {
          text += cell[i];
          if (cell[i] == '"') ++i;
        }
        cell = text;
      }
      cells.push_back(cell);
      if (at_ < end_ && *at_ == '\r' && (at_ + 1 == end_ || at_[1] == '\n')) ++at_;
      if (at_ < end_ && *at_ != delimiter_ && *at_ != '\n')
        throw Error(Code::kData,
                    fmt::format("text follows the closing quote of field {}", cells.size()),
                    where(), "Inside a quoted field, write a quote as two quotes.");
    } else {
      const char* from = at_;
      while (at_ < end_ && *at_ != delimiter_ && *at_ != '\n') ++at_;
      const char* to = at_;
      if (to > from && to[-1] == '\r' && (at_ == end_ || *at_ == '\n')) --to;
      cells.emplace_back(from, to - from);
    }
    if (at_ >= end_) break;
    if (*at_++ == '\n') {
      ++next_line_;
      break;
    }
  }
  return true;
}

bool CsvReader::next(std::vector<std::string_view>& cells) {
  if (!read_row(cells)) return false;
  if (cells.size() != names_.size())
    throw Error(Code::kData,
                fmt::format("the row has {} fields, the header {}", cells.size(), names_.size()),
                where(), "Is the delimiter right, and is text that holds it quoted?");
  return true;
}

int32_t Dictionary::code(std::string_view text) {
  auto found = codes_.find(text);
  if (found != codes_.end()) return found->second;
  const auto code = static_cast<int32_t>(texts_.size());
  codes_.emplace(text, code);
  texts_.emplace_back(text);
  return code;
}

int32_t Dictionary::find(std::string_view text) const {
  auto found = codes_.find(text);
  return found == codes_.end() ? -1 : found->second;
}

TableRows read_table(const Bytes& file, char delimiter, const TableColumns& columns,
                     std::vector<Dictionary>& dictionaries, Dictionary& classes,
                     bool classes_grow) {
  CsvReader reader(file, delimiter);
  std::vector<size_t> numbers, strings;
  for (const auto& name : columns.numbers)
    numbers.push_back(column_index(reader.names(), file.path, name, "data.number_columns"));
  for (const auto& name : columns.strings)
    strings.push_back(column_index(reader.names(), file.path, name, "data.string_columns"));
  const bool has_target = !columns.target.empty();
  const size_t target =
      has_target ? column_index(reader.names(), file.path, columns.target, "data.target") : 0;
  dictionaries.resize(strings.size());

  TableRows table;
  std::vector<std::string_view> cells;
  auto number = [&](size_t column) {
    const auto value = parse_number(cells[column]);
    if (!value)
      throw Error(
          Code::kData,
          fmt::format("column '{}': {} is no finite number", reader.names()[column],
                      quoted(cells[column])),
          reader.where(),
          "Correct it, leave the cell empty for a missing value, or read the column as strings.");
    return *value;
  };
  while (reader.next(cells)) {
    ++table.rows;
    for (size_t column : numbers) table.numbers.push_back(number(column));
    for (size_t s = 0; s < strings.size(); ++s)
      table.codes.push_back(dictionaries[s].code(cells[strings[s]]));
    if (!has_target) continue;
    if (!columns.target_is_class) {
      table.values.push_back(number(target));
      if (std::isnan(table.values.back()))
        throw Error(Code::kData, fmt::format("the target '{}' is missing", columns.target),
                    reader.where(), "Remove the row or give the value.");
      continue;
    }
    const std::string_view label = trim(cells[target]);
    if (label.empty())
      throw Error(Code::kData, fmt::format("the target '{}' is missing", columns.target),
                  reader.where(), "Remove the row or give the label.");
    const int32_t code = classes_grow ? classes.code(label) : classes.find(label);
    if (code < 0)
      throw Error(Code::kData,
                  fmt::format("the label {} is none of the {} classes", quoted(label),
                              classes.texts().size()),
                  reader.where(), fmt::format("Classes are {}.", fmt::join(classes.texts(), ", ")));
    table.labels.push_back(code);
  }
  return table;
}

std::vector<bool> number_columns(const Bytes& file, char delimiter) {
  CsvReader reader(file, delimiter);
  std::vector<bool> is_number(reader.names().size(), true);
  std::vector<std::string_view> cells;
  while (reader.next(cells))
    for (size_t i = 0; i < cells.size(); ++i)
      if (is_number[i] && !parse_number(cells[i])) is_number[i] = false;
  return is_number;
}

char parse_delimiter(const std::string& text) {
  if (text == "tab" || text == "\\t") return '\t';
  if (text.size() == 1 && text[0] != '"' && text[0] != '\n' && text[0] != '\r') return text[0];
  throw Error(Code::kRecipe, fmt::format("'{}' separates no fields", text), "data.delimiter",
              "Write one character, such as , or ; or |, or `tab`.");
}

}  // namespace lehr::data
