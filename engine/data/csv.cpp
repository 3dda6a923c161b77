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
#include "engine/base/what_is.h"

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

// those of pandas 3 (pandas._libs.parsers.STR_NA_VALUES), and NAN
bool is_missing(std::string_view cell) {
  static constexpr std::string_view words[] = {"",     "NA",      "N/A",    "NaN",      "nan",
                                               "NAN",  "null",    "NULL",   "None",     "n/a",
                                               "<NA>", "#N/A",    "#NA",    "#N/A N/A", "-NaN",
                                               "-nan", "-1.#IND", "1.#IND", "1.#QNAN",  "-1.#QNAN"};
  return std::find(std::begin(words), std::end(words), cell) != std::end(words);
}

std::string_view trim(std::string_view cell) {
  while (!cell.empty() && (cell.front() == ' ' || cell.front() == '\t')) cell.remove_prefix(1);
  while (!cell.empty() && (cell.back() == ' ' || cell.back() == '\t')) cell.remove_suffix(1);
  return cell;
}

// digits alone, perhaps after a sign
bool is_whole(std::string_view cell) {
  if (!cell.empty() && (cell.front() == '-' || cell.front() == '+')) cell.remove_prefix(1);
  return !cell.empty() &&
         std::all_of(cell.begin(), cell.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// `value`: what was read of the cell
bool is_rounded(std::string_view cell, double value) {
  constexpr double kExact = 9007199254740992;  // 2^53
  if (std::abs(value) < kExact || !is_whole(trim(cell))) return false;
  const std::string exact = fmt::format("{:.0f}", std::abs(value));
  std::string_view digits = trim(cell);
  digits.remove_prefix(std::min(digits.find_first_of("123456789"), digits.size()));
  return digits != exact;
}

}  // namespace

std::optional<double> parse_number(std::string_view cell, const StringList& missing) {
  cell = trim(cell);
  if (is_missing(cell) || std::find(missing.begin(), missing.end(), cell) != missing.end())
    return std::numeric_limits<double>::quiet_NaN();
  if (cell.front() == '+' && cell.substr(0, 2) != "+-") cell.remove_prefix(1);
  double value = 0;
  auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (end != cell.data() + cell.size()) return std::nullopt;
  // too near to zero is zero; too large is infinite
  if (error == std::errc::result_out_of_range)
    value = std::strtod(std::string(cell).c_str(), nullptr);
  else if (error != std::errc())
    return std::nullopt;
  if (std::isnan(value)) return std::nullopt;
  return value;
}

std::string cell_text(std::string_view cell) {
  std::string text(cell.substr(0, 40));
  std::replace(text.begin(), text.end(), '\n', ' ');
  return "'" + text + (cell.size() > 40 ? "...'" : "'");
}

size_t column_index(const StringList& names, const std::string& path, const std::string& name,
                    const std::string& field) {
  auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return found - names.begin();
  const std::string near = nearest(name, names);
  std::string hint = fmt::format("Did you mean '{}'?", near);
  if (names.size() == 1)
    hint = fmt::format("It has one column, {}: is data.delimiter what separates its fields?",
                       cell_text(names[0]));
  else if (near.empty())
    hint = fmt::format("Its columns are {}.", fmt::join(names, ", "));
  throw Error(Code::kRecipe, fmt::format("{} has no column '{}'", path, name), field, hint);
}

CsvReader::CsvReader(const Bytes& file, char delimiter)
    : path_(file.path),
      delimiter_(delimiter),
      window_(reinterpret_cast<const char*>(file.begin())),
      at_(window_),
      end_(window_ + file.size) {
  begin();
}

CsvReader::CsvReader(const std::string& path, char delimiter)
    : path_(path),
      delimiter_(delimiter),
      stream_(std::make_unique<ByteStream>(path)),
      more_(true),
      window_(buffer_.data()),
      at_(window_),
      end_(window_) {
  read_more(at_);
  begin();
}

void CsvReader::begin() {
  at_ = plain_text({at_, static_cast<size_t>(end_ - at_)}, path_).data();
  const std::string_view head(at_, end_ - at_);
  if (head.find('\n') == head.npos && head.find('\r') != head.npos)
    throw Error(Code::kData, "its lines end in a carriage return alone, as of old Mac programs",
                path_, "Convert it: tr '\\r' '\\n' < FILE > NEW");
  std::vector<std::string_view> cells;
  if (!read_row(cells))
    throw Error(Code::kData, "the table is empty", path_, "It begins with a line of column names.");
  for (size_t i = 0; i < cells.size(); ++i) {
    std::string name(trim(cells[i]));
    if (name.empty())
      name = fmt::format("column_{}", i + 1);  // row names of R and pandas have none
    if (std::find(names_.begin(), names_.end(), name) != names_.end())
      throw Error(Code::kData, fmt::format("two columns are called '{}'", name), where(),
                  "Columns are found by name: rename one of them in this line.");
    names_.push_back(std::move(name));
  }
}

std::string CsvReader::where() const { return fmt::format("{}:{}", path_, line_); }

// What is before `from` goes, and as much comes as stays, a megabyte at least.
void CsvReader::read_more(const char* from) {
  constexpr size_t kPiece = 1 << 20;
  first_byte_ += static_cast<uint64_t>(from - window_);
  buffer_.erase(0, static_cast<size_t>(from - window_));
  const size_t kept = buffer_.size(), wanted = std::max(kPiece, kept);
  buffer_.resize(kept + wanted);
  const size_t came = stream_->read(buffer_.data() + kept, wanted);
  buffer_.resize(kept + came);
  more_ = came == wanted;
  window_ = at_ = buffer_.data();
  end_ = window_ + buffer_.size();
}

bool CsvReader::read_row(std::vector<std::string_view>& cells) {
  for (;;) {
    const char* row = at_;
    const int64_t line = next_line_;
    parse_row(cells);
    if (at_ >= end_ && more_) {  // it may go on
      next_line_ = line;
      read_more(row);
      continue;
    }
    const auto* bytes = reinterpret_cast<const uint8_t*>(row);
    const size_t size = static_cast<size_t>(at_ - row), bad = first_bad_byte(bytes, size);
    if (bad < size)
      bad_byte(path_, first_byte_ + static_cast<uint64_t>(row - window_) + bad,
               fmt::format("0x{:02x} is no UTF-8 text", bytes[bad]),
               "Is it a CSV file? If so, convert it with: iconv -f latin1 -t utf-8");
    return !cells.empty();
  }
}

// Up to the end of the window where that comes first. Without cells: there is no row.
void CsvReader::parse_row(std::vector<std::string_view>& cells) {
  cells.clear();
  // lines without anything are passed over; in a table of one column they are a missing value
  while (names_.size() != 1 && at_ < end_ &&
         (*at_ == '\n' || (*at_ == '\r' && at_ + 1 < end_ && at_[1] == '\n'))) {
    at_ += *at_ == '\r' ? 2 : 1;
    ++next_line_;
  }
  line_ = next_line_;
  if (at_ >= end_) return;
  size_t used = 0;  // of unquoted_
  for (;;) {
    if (at_ < end_ && *at_ == '"') {
      const char* from = ++at_;
      bool doubled = false;
      for (;; ++at_) {
        if (at_ >= end_) {
          if (more_) return;
          throw Error(Code::kData, "a quote that opens in this row is never closed", where());
        }
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

TableReader::TableReader(CsvReader& reader, const std::string& path, const TableColumns& columns,
                         std::vector<Dictionary>& dictionaries, Dictionary& classes,
                         bool classes_grow)
    : reader_(reader),
      columns_(columns),
      dictionaries_(dictionaries),
      classes_(classes),
      classes_grow_(classes_grow) {
  const StringList& names = reader.names();
  for (const auto& name : columns.numbers)
    numbers_.push_back(column_index(names, path, name, "data.number_columns"));
  for (const auto& name : columns.strings)
    strings_.push_back(column_index(names, path, name, "data.string_columns"));
  if (!columns.target.empty()) target_ = column_index(names, path, columns.target, "data.target");
  dictionaries_.resize(strings_.size());
}

double TableReader::number(const std::string& column, std::string_view cell) const {
  const auto value = parse_number(cell, columns_.missing);
  if (!value)
    throw Error(Code::kData, fmt::format("column '{}': {} is no number", column, cell_text(cell)),
                reader_.where(),
                "Correct it, leave the cell empty for a missing value (data.missing_values names "
                "other words for that), or read the column as strings.");
  if (std::isinf(*value))
    throw Error(Code::kData, fmt::format("column '{}': {} is infinite", column, cell_text(cell)),
                reader_.where(),
                "Give a finite number, or leave the cell empty for a missing value.");
  return *value;
}

void TableReader::read(TableRows& table, int64_t most) {
  table.rounded.resize(numbers_.size());
  for (int64_t i = 0; i < most && reader_.next(cells_); ++i) {
    ++table.rows;
    for (size_t f = 0; f < numbers_.size(); ++f) {
      const std::string_view cell = cells_[numbers_[f]];
      table.numbers.push_back(number(columns_.numbers[f], cell));
      if (is_rounded(cell, table.numbers.back())) ++table.rounded[f];
    }
    for (size_t s = 0; s < strings_.size(); ++s)
      table.codes.push_back(dictionaries_[s].code(cells_[strings_[s]]));
    if (columns_.target.empty()) continue;
    if (!columns_.target_is_class) {
      table.values.push_back(number(columns_.target, cells_[target_]));
      if (std::isnan(table.values.back()))
        throw Error(Code::kData, fmt::format("the target '{}' is missing", columns_.target),
                    reader_.where(), "Remove the row or give the value.");
      continue;
    }
    const std::string_view label = trim(cells_[target_]);
    if (label.empty())
      throw Error(Code::kData, fmt::format("the target '{}' is missing", columns_.target),
                  reader_.where(), "Remove the row or give the label.");
    const int32_t code = classes_grow_ ? classes_.code(label) : classes_.find(label);
    if (code < 0)
      throw Error(Code::kData,
                  fmt::format("the label {} is none of the {} classes", cell_text(label),
                              classes_.texts().size()),
                  reader_.where(),
                  fmt::format("Classes are {}.", fmt::join(classes_.texts(), ", ")));
    table.labels.push_back(code);
  }
}

TableRows read_table(const Bytes& file, char delimiter, const TableColumns& columns,
                     std::vector<Dictionary>& dictionaries, Dictionary& classes,
                     bool classes_grow) {
  CsvReader reader(file, delimiter);
  TableRows table;
  TableReader(reader, file.path, columns, dictionaries, classes, classes_grow)
      .read(table, INT64_MAX);
  return table;
}

char parse_delimiter(const std::string& text) {
  if (text == "tab" || text == "\\t") return '\t';
  if (text.size() == 1 && text[0] != '"' && text[0] != '\n' && text[0] != '\r') return text[0];
  throw Error(Code::kRecipe, fmt::format("'{}' separates no fields", text), "data.delimiter",
              "Write one character, such as , or ; or |, or `tab`.");
}

}  // namespace lehr::data
